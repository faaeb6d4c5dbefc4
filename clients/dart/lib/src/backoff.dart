import 'dart:math';

const _first = Duration(milliseconds: 250);
const _longest = Duration(seconds: 15);

/// The longest wait that a server can ask for: none may put a client to sleep for good.
const _longestAsked = Duration(minutes: 5);

/// Waits that double from 250 ms to 15 s, each shortened by chance to between half and all of it,
/// so that clients that lost a server together do not come back together.
class Backoff {
  final _chance = Random();
  Duration _next = _first;

  /// The wait before the next attempt, at least as long as [asked].
  Duration next([Duration asked = Duration.zero]) {
    final own = _next * (0.5 + 0.5 * _chance.nextDouble());
    final doubled = _next * 2;
    _next = doubled < _longest ? doubled : _longest;
    final bound = bounded(asked);
    return bound > own ? bound : own;
  }

  /// Starts from the shortest wait again.
  void reset() => _next = _first;
}

/// What a server asks for, as far as that goes.
Duration bounded(Duration asked) => asked < _longestAsked ? asked : _longestAsked;
