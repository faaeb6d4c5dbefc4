#nullable enable
using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;
using Game.V1;
using Grpc.Core;

namespace Herald
{
    public sealed partial class HeraldClient
    {
        private static readonly TimeSpan UsualHeartbeat = TimeSpan.FromSeconds(15);
        private static readonly TimeSpan ShortestHeartbeat = TimeSpan.FromSeconds(1);
        private static readonly TimeSpan LongestHeartbeat = TimeSpan.FromSeconds(60);

        /// <summary>After so many intervals without a message a stream is dead: one may be late,
        /// two lost.</summary>
        private const int SilentIntervals = 3;

        /// <summary>
        /// Streams one after the other as if they were one. Gives each response whole, with its
        /// cursor: deal with its events, then store the cursor, and start with it as AfterCursor
        /// the next time. A stream that breaks, is closed by the server, or is silent for three
        /// heartbeat intervals, is followed by another one behind the newest cursor, for as long as
        /// it takes. Ends by itself after MaxEvents, counted over all streams, and with
        /// StopWhenCaughtUp.
        /// </summary>
        /// <param name="request">What to stream; it is not changed.</param>
        /// <param name="onReconnect">Told how long the wait before the next stream is, and why; no
        /// error when the server has ended the stream in order.</param>
        /// <param name="cancellation">Ends the tail, with an OperationCanceledException.</param>
        /// <exception cref="HeraldException">Trying again cannot help, as with the reasons
        /// CURSOR_EXPIRED, CURSOR_AHEAD and FEED_EPOCH_CHANGED.</exception>
        public async IAsyncEnumerable<StreamEventsResponse> Tail(
            StreamEventsRequest request,
            Action<TimeSpan, HeraldException?>? onReconnect = null,
            [EnumeratorCancellation] CancellationToken cancellation = default)
        {
            var next = request.Clone();
            var patience = Patience(request);
            var endless = next.MaxEvents <= 0;
            var caughtUp = false;
            // At 0 events left, another request would mean "no end".
            bool Complete() =>
                (!endless && next.MaxEvents <= 0) || (next.StopWhenCaughtUp && caughtUp);
            var backoff = new Backoff();
            while (true)
            {
                cancellation.ThrowIfCancellationRequested();
                TimeSpan? delay = null;
                HeraldException? error = null;
                using (var stream = CancellationTokenSource.CreateLinkedTokenSource(cancellation))
                using (var call = Feed.StreamEvents(next, cancellationToken: stream.Token))
                {
                    while (delay == null)
                    {
                        StreamEventsResponse? message;
                        (message, error) = await Next(call, stream, patience).ConfigureAwait(false);
                        if (message == null) break;
                        if (message.Cursor != "") next.AfterCursor = message.Cursor;
                        switch (message.ResponseCase)
                        {
                            case StreamEventsResponse.ResponseOneofCase.Batch:
                                backoff.Reset();
                                if (!endless) next.MaxEvents -= message.Batch.Events.Count;
                                break;
                            case StreamEventsResponse.ResponseOneofCase.CaughtUp:
                                caughtUp = true;
                                break;
                            case StreamEventsResponse.ResponseOneofCase.FellBehind:
                                caughtUp = false;
                                break;
                        }
                        yield return message;
                        if (message.ResponseCase == StreamEventsResponse.ResponseOneofCase.Closing)
                        {
                            if (Complete()) yield break;
                            if (!message.Closing.Resumable)
                            {
                                throw Failure(StatusCode.FailedPrecondition,
                                    "the server has closed the stream for good");
                            }
                            delay = Backoff.Bounded(
                                message.Closing.ReconnectDelay?.ToTimeSpan() ?? TimeSpan.Zero);
                        }
                    }
                    stream.Cancel();
                }
                cancellation.ThrowIfCancellationRequested();
                if (Complete()) yield break;
                if (error != null && !error.Retryable) throw error;
                // A closing without a delay, and an end without one, are waited for as errors.
                var wait = delay is TimeSpan asked && asked > TimeSpan.Zero
                    ? asked
                    : backoff.Next(error?.RetryDelay ?? TimeSpan.Zero);
                onReconnect?.Invoke(wait, error);
                await Task.Delay(wait, cancellation).ConfigureAwait(false);
            }
        }

        /// <summary>The next message, or why there is none; neither when the stream has ended in
        /// order.</summary>
        private static async Task<(StreamEventsResponse?, HeraldException?)> Next(
            AsyncServerStreamingCall<StreamEventsResponse> call,
            CancellationTokenSource stream,
            TimeSpan patience)
        {
            // Runs only while a message is waited for, not while one is dealt with.
            stream.CancelAfter(patience);
            try
            {
                var more = await call.ResponseStream.MoveNext(stream.Token).ConfigureAwait(false);
                stream.CancelAfter(System.Threading.Timeout.InfiniteTimeSpan);
                return (more ? call.ResponseStream.Current : null, null);
            }
            catch (Exception silence)
                when (stream.IsCancellationRequested
                    && (silence is RpcException || silence is OperationCanceledException))
            {
                return (null, Failure(StatusCode.DeadlineExceeded,
                    $"nothing came for {patience.TotalSeconds} s"));
            }
            catch (RpcException failure)
            {
                return (null, new HeraldException(failure));
            }
        }

        private static HeraldException Failure(StatusCode code, string text) =>
            new HeraldException(new RpcException(new Status(code, text)));

        private static TimeSpan Patience(StreamEventsRequest request)
        {
            var interval = request.HeartbeatInterval?.ToTimeSpan() ?? UsualHeartbeat;
            if (interval < ShortestHeartbeat) interval = ShortestHeartbeat;
            if (interval > LongestHeartbeat) interval = LongestHeartbeat;
            return TimeSpan.FromTicks(interval.Ticks * SilentIntervals);
        }
    }
}
