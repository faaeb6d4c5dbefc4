/// A client of Herald, a game event service: calls that are tried again safely, and a feed that
/// resumes.
library;

export 'src/client.dart';
export 'src/error.dart';
export 'src/generated/herald/game/v1/game.pbgrpc.dart';
