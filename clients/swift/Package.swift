// swift-tools-version:6.1

import PackageDescription

let package = Package(
  name: "herald",
  // Those of grpc-swift 2.
  platforms: [.iOS("18.0"), .macOS("15.0"), .tvOS("18.0"), .visionOS("2.0")],
  products: [.library(name: "Herald", targets: ["Herald"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-protobuf.git", from: "1.38.1"),
    .package(url: "https://github.com/grpc/grpc-swift-2.git", from: "2.4.2"),
    .package(url: "https://github.com/grpc/grpc-swift-nio-transport.git", from: "2.0.0"),
    .package(url: "https://github.com/grpc/grpc-swift-protobuf.git", from: "2.4.1"),
  ],
  targets: [
    .target(
      name: "Herald",
      dependencies: [
        .product(name: "GRPCCore", package: "grpc-swift-2"),
        .product(name: "GRPCProtobuf", package: "grpc-swift-protobuf"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
      ]
    ),
    .executableTarget(
      name: "Example",
      dependencies: [
        "Herald",
        .product(name: "GRPCNIOTransportHTTP2", package: "grpc-swift-nio-transport"),
      ]
    ),
  ]
)
