import 'dart:async';

/// Whether somebody has ended what goes on. It is waited with for one thing at a time, and holds
/// nothing of what it was waited with for before.
class Cancellation {
  bool _isCancelled = false;
  void Function()? _end;

  /// Whether it is to end.
  bool get isCancelled => _isCancelled;

  /// Ends what is waited for, and all that is to come.
  void cancel() {
    _isCancelled = true;
    _end?.call();
  }

  /// What [future] gives, or [otherwise] once it is to end, whichever is first. What [future] gives
  /// later, or fails with, is ignored.
  Future<T> orElse<T>(Future<T> future, T otherwise) {
    final first = Completer<T>();
    void end() {
      if (!first.isCompleted) first.complete(otherwise);
    }

    future.then(
      (value) {
        if (!first.isCompleted) first.complete(value);
      },
      onError: (Object error, StackTrace trace) {
        if (!first.isCompleted) first.completeError(error, trace);
      },
    );
    _end = end;
    if (_isCancelled) end();
    return first.future;
  }
}
