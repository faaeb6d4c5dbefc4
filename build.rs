//! Compiles `proto/game.proto` without a `protoc` on the machine.
//!
//! Three files come out of one descriptor set, so that each room includes only
//! what it may know: the messages (`messages/`), the server's stubs (`server/`), and the
//! client's stubs (`client/`). The
//! descriptor set itself is kept for reflection and for JSON.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

/// Where the generated messages are mounted in the crate.
const MESSAGES: &str = "crate::proto";
/// What the server answers a poll with: the same message, with events that are written
/// already.
const POLL_ANSWER: &str = "crate::feed::PollAnswer";

#[allow(clippy::disallowed_methods, reason = "how cargo speaks to a build script")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/game.proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // `protox::compile` drops comments and custom options; the compiler keeps
    // both, and reflection shows them.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file("game.proto")?;
    fs::write(out.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;
    // `prost_types` knows no custom options; the stubs do not need them.
    let descriptors =
        prost_types::FileDescriptorSet::decode(&*compiler.encode_file_descriptor_set())?;

    let dir = |name: &str| -> Result<PathBuf, std::io::Error> {
        let dir = out.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    };
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .btree_map(".")
        .bytes(".")
        .out_dir(dir("messages")?)
        .compile_fds(descriptors.clone())?;
    stubs(&dir("server")?)
        .build_client(false)
        .extern_path(".game.v1.PollEventsResponse", POLL_ANSWER)
        .compile_fds(without_streams(descriptors.clone()))?;
    stubs(&dir("client")?).build_server(false).compile_fds(descriptors)?;
    Ok(())
}

/// Streams are served by hand, from messages that are written down before they get there:
/// `src/grpc/feed.rs`.
fn without_streams(
    mut descriptors: prost_types::FileDescriptorSet,
) -> prost_types::FileDescriptorSet {
    for service in descriptors.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| !method.server_streaming());
    }
    descriptors
}

fn stubs(out: &Path) -> tonic_prost_build::Builder {
    tonic_prost_build::configure().extern_path(".game.v1", MESSAGES).out_dir(out)
}
