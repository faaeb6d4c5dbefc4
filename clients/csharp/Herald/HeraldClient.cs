#nullable enable
using System;
using System.Threading;
using System.Threading.Tasks;
using Game.V1;
using Google.Protobuf;
using Grpc.Core;

namespace Herald
{
    /// <summary>A client of a Herald server, on a channel of the caller's.</summary>
    public sealed partial class HeraldClient
    {
        private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(5);
        private const int Attempts = 5;

        /// <summary>A client of the server that the channel leads to.</summary>
        public HeraldClient(ChannelBase channel)
        {
            Game = new GameService.GameServiceClient(channel);
            Feed = new EventFeedService.EventFeedServiceClient(channel);
        }

        /// <summary>What players do: the stub, whose methods <see cref="Call"/> takes.</summary>
        public GameService.GameServiceClient Game { get; }

        /// <summary>The feed: the stub. See <see cref="Tail"/> for one that resumes.</summary>
        public EventFeedService.EventFeedServiceClient Feed { get; }

        /// <summary>
        /// Makes a call, as in <c>Call(herald.Game.PurchaseItemAsync, request)</c>, and tries it
        /// again while that can help; an action always with the same request id, so that it is
        /// carried out once.
        /// </summary>
        /// <param name="method">A method of a stub.</param>
        /// <param name="request">The request; it is not changed.</param>
        /// <param name="timeout">The deadline of each attempt; 5 s when absent.</param>
        /// <param name="attempts">The most attempts, at least 1.</param>
        /// <param name="cancellation">Ends the call, and the waiting between attempts.</param>
        /// <exception cref="HeraldException">What the last attempt has failed with; of the code
        /// Cancelled when it was ended while under way.</exception>
        /// <exception cref="OperationCanceledException">It was ended between two attempts; the
        /// inner exception is what the last one has failed with.</exception>
        public async Task<TResponse> Call<TRequest, TResponse>(
            Func<TRequest, CallOptions, AsyncUnaryCall<TResponse>> method,
            TRequest request,
            TimeSpan? timeout = null,
            int attempts = Attempts,
            CancellationToken cancellation = default)
            where TRequest : class, IMessage<TRequest>
        {
            var message = request.Clone();
            var requestId = "";
            if (message is IAction action)
            {
                if (action.RequestId == "") action.RequestId = Guid.NewGuid().ToString();
                requestId = action.RequestId;
            }
            var open = false;
            var backoff = new Backoff();
            for (var attempt = 1; ; attempt++)
            {
                HeraldException error;
                try
                {
                    var deadline = DateTime.UtcNow + (timeout ?? Timeout);
                    using var call = method(
                        message,
                        new CallOptions(deadline: deadline, cancellationToken: cancellation));
                    return await call.ResponseAsync.ConfigureAwait(false);
                }
                catch (RpcException failure)
                {
                    error = new HeraldException(failure, requestId, open);
                }
                if (cancellation.IsCancellationRequested || !error.Retryable || attempt >= attempts)
                {
                    throw error;
                }
                open = error.MayHaveHappened;
                try
                {
                    var wait = backoff.Next(error.RetryDelay);
                    await Task.Delay(wait, cancellation).ConfigureAwait(false);
                }
                catch (OperationCanceledException ended)
                {
                    throw new OperationCanceledException(ended.Message, error, cancellation);
                }
            }
        }
    }
}
