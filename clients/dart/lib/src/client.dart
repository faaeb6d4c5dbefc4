import 'dart:async';

import 'package:fixnum/fixnum.dart';
import 'package:grpc/grpc_or_grpcweb.dart' show GrpcError;
import 'package:grpc/service_api.dart' show CallOptions, ClientChannel, ResponseFuture;
import 'package:protobuf/protobuf.dart';
import 'package:uuid/uuid.dart';

import 'backoff.dart';
import 'cancellation.dart';
import 'error.dart';
import 'generated/herald/game/v1/game.pbgrpc.dart';

const _heartbeat = Duration(seconds: 15);
const _shortestHeartbeat = Duration(seconds: 1);
const _longestHeartbeat = Duration(seconds: 60);

/// After so many intervals without a message a stream is dead: one may be late, two lost.
const _silentIntervals = 3;

/// A client of a Herald server, on a channel of the caller's.
class Herald {
  /// A client of the server that the channel leads to.
  Herald(ClientChannel channel)
    : game = GameServiceClient(channel),
      feed = EventFeedServiceClient(channel);

  /// What players do: the stub, whose methods [call] takes.
  final GameServiceClient game;

  /// The feed: the stub. See [tail] for one that resumes.
  final EventFeedServiceClient feed;

  /// Makes a call, as in `call(herald.game.purchaseItem, request)`, and tries it again while that
  /// can help; an action always with the same request id, so that it is carried out once.
  ///
  /// Each attempt has the deadline [timeout], and there are [attempts] at the most. Throws the
  /// [HeraldError] of the last one. [request] is not changed.
  Future<R> call<Q extends GeneratedMessage, R>(
    ResponseFuture<R> Function(Q request, {CallOptions? options}) method,
    Q request, {
    Duration timeout = const Duration(seconds: 5),
    int attempts = 5,
  }) async {
    final message = request.deepCopy();
    final requestId = _isAction(message) ? _requestId(message) : '';
    var open = false;
    final backoff = Backoff();
    for (var attempt = 1; ; attempt++) {
      try {
        return await method(message, options: CallOptions(timeout: timeout));
      } on GrpcError catch (failure) {
        final error = HeraldError.of(failure, requestId: requestId, hadOpenOutcome: open);
        if (!error.retryable || attempt >= attempts) throw error;
        open = error.mayHaveHappened;
        await Future<void>.delayed(backoff.next(error.retryDelay));
      }
    }
  }

  /// Streams one after the other as if they were one. Gives each response whole, with its cursor:
  /// deal with its events, then store the cursor, and start with it as `afterCursor` the next time.
  ///
  /// A stream that breaks, is closed by the server, or is silent for three heartbeat intervals, is
  /// followed by another one behind the newest cursor, for as long as it takes; [onReconnect] is
  /// told the wait before it and why, no error when the server has ended the stream in order.
  ///
  /// Ends by itself after `maxEvents`, counted over all streams, and with `stopWhenCaughtUp`; at
  /// once when its subscription is cancelled, also between messages and while it waits. Fails with
  /// the [HeraldError] that trying again cannot help, as with the reasons `CURSOR_EXPIRED`,
  /// `CURSOR_AHEAD` and `FEED_EPOCH_CHANGED`.
  Stream<StreamEventsResponse> tail(
    StreamEventsRequest request, {
    void Function(Duration delay, HeraldError? error)? onReconnect,
  }) {
    final cancellation = Cancellation();
    late final StreamSubscription<StreamEventsResponse> source;
    // What is added comes from another stream, whose pauses are those of the reader.
    final tail = StreamController<StreamEventsResponse>(
      sync: true,
      onPause: () => source.pause(),
      onResume: () => source.resume(),
      onCancel: () {
        cancellation.cancel();
        return source.cancel();
      },
    );
    tail.onListen = () {
      source = _streams(
        request,
        onReconnect,
        cancellation,
      ).listen(tail.add, onError: tail.addError, onDone: tail.close);
    };
    return tail.stream;
  }

  /// The tail. A generator that is cancelled goes on to its next message: [cancellation] ends what
  /// it waits for.
  Stream<StreamEventsResponse> _streams(
    StreamEventsRequest request,
    void Function(Duration delay, HeraldError? error)? onReconnect,
    Cancellation cancellation,
  ) async* {
    final next = request.deepCopy();
    final patience = _patience(request);
    final endless = next.maxEvents <= Int64.ZERO;
    var caughtUp = false;
    // At 0 events left, another request would mean "no end".
    bool complete() =>
        (!endless && next.maxEvents <= Int64.ZERO) || (next.stopWhenCaughtUp && caughtUp);
    final backoff = Backoff();
    while (!cancellation.isCancelled) {
      Duration? delay;
      HeraldError? error;
      // Not the one that goes on: it is encoded when the call is made.
      final call = feed.streamEvents(next.deepCopy());
      final responses = StreamIterator(call);
      try {
        // The time runs only while a message is waited for, not while one is dealt with.
        while (delay == null) {
          final more = responses.moveNext().timeout(patience);
          if (!await cancellation.orElse(more, false)) break;
          final message = responses.current;
          if (message.cursor.isNotEmpty) next.afterCursor = message.cursor;
          switch (message.whichResponse()) {
            case StreamEventsResponse_Response.batch:
              backoff.reset();
              if (!endless) next.maxEvents -= Int64(message.batch.events.length);
            case StreamEventsResponse_Response.caughtUp:
              caughtUp = true;
            case StreamEventsResponse_Response.fellBehind:
              caughtUp = false;
            default:
          }
          yield message;
          if (message.whichResponse() == StreamEventsResponse_Response.closing) {
            if (complete()) return;
            if (!message.closing.resumable) {
              throw HeraldError.of(
                const GrpcError.failedPrecondition('the server has closed the stream for good'),
              );
            }
            delay = bounded(message.closing.reconnectDelay.toDart());
          }
        }
      } on TimeoutException {
        error = HeraldError.of(
          GrpcError.deadlineExceeded('nothing came for ${patience.inSeconds} s'),
        );
      } on GrpcError catch (failure) {
        error = HeraldError.of(failure);
      } finally {
        // The first ends a call only once it has a connection, the second also one that waits for
        // it. Not waited for: a connection that is dead does not answer.
        responses.cancel().ignore();
        call.cancel().ignore();
      }
      if (complete() || cancellation.isCancelled) return;
      if (error != null && !error.retryable) throw error;
      // A closing without a delay, and an end without a closing, are waited for as errors are.
      final wait = delay != null && delay > Duration.zero
          ? delay
          : backoff.next(error?.retryDelay ?? Duration.zero);
      onReconnect?.call(wait, error);
      final waited = Completer<void>();
      final timer = Timer(wait, waited.complete);
      await cancellation.orElse(waited.future, null);
      timer.cancel();
    }
  }
}

/// Whether it is a request to do something, which all can be told only to check.
bool _isAction(GeneratedMessage message) => message.info_.byName.containsKey('validateOnly');

/// The request id of an action, made when it has none.
String _requestId(GeneratedMessage message) {
  final field = message.info_.byName['requestId']!.tagNumber;
  if ((message.getField(field) as String).isEmpty) message.setField(field, const Uuid().v4());
  return message.getField(field) as String;
}

Duration _patience(StreamEventsRequest request) {
  var interval = request.hasHeartbeatInterval() ? request.heartbeatInterval.toDart() : _heartbeat;
  if (interval < _shortestHeartbeat) interval = _shortestHeartbeat;
  if (interval > _longestHeartbeat) interval = _longestHeartbeat;
  return interval * _silentIntervals;
}
