#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;
using Google.Protobuf;
using Google.Rpc;
using Grpc.Core;

namespace Herald
{
    /// <summary>Why a call failed. Decide on <see cref="Code"/> and <see cref="Reason"/>: texts may
    /// change.</summary>
    public sealed class HeraldException : Exception
    {
        private static readonly HashSet<string> Passing = new HashSet<string>
        {
            "LOG_UNAVAILABLE",
            "OVERLOADED",
            "REQUEST_IN_PROGRESS",
            "STATE_BEHIND",
            "STREAM_DEADLINE",
            "SUBSCRIBER_LIMIT",
            "WRITE_OUTCOME_UNKNOWN",
        };

        /// <summary>The codes with which a library or a proxy says that the call may succeed later.
        /// </summary>
        private static readonly HashSet<StatusCode> PassingCodes = new HashSet<StatusCode>
        {
            StatusCode.Unavailable,
            StatusCode.DeadlineExceeded,
            StatusCode.Internal,
            StatusCode.Unknown,
            StatusCode.Cancelled,
        };

        /// <summary>Reads what a call has failed with.</summary>
        internal HeraldException(
            RpcException failure, string requestId = "", bool hadOpenOutcome = false)
            : base(failure.Status.Detail, failure)
        {
            // Details that a proxy has mangled are as none.
            var status = failure.Trailers.GetRpcStatus(ignoreParseError: true);
            var info = Details<ErrorInfo>(status).FirstOrDefault(one => one.Domain == "herald");
            var delay = Details<RetryInfo>(status).FirstOrDefault()?.RetryDelay;
            Code = failure.StatusCode;
            Reason = info?.Reason ?? "";
            Violations = Details<BadRequest>(status)
                .SelectMany(bad => bad.FieldViolations)
                .Select(violation => (violation.Field, violation.Description)).ToList();
            Metadata = info?.Metadata.ToDictionary(pair => pair.Key, pair => pair.Value)
                ?? new Dictionary<string, string>();
            RetryDelay = delay?.ToTimeSpan() ?? TimeSpan.Zero;
            Retryable = info != null
                ? Passing.Contains(Reason) || delay != null || Code == StatusCode.Unavailable
                : PassingCodes.Contains(Code);
            RequestId = requestId;
            var open = info != null
                ? Reason == "WRITE_OUTCOME_UNKNOWN" || Reason == "REQUEST_IN_PROGRESS"
                : Code != StatusCode.Unimplemented;
            MayHaveHappened = requestId != "" && (hadOpenOutcome || open);
        }

        /// <summary>The details of a type, without those that cannot be decoded.</summary>
        private static List<T> Details<T>(Google.Rpc.Status? status)
            where T : class, IMessage<T>, new()
        {
            var details = new List<T>();
            if (status == null) return details;
            foreach (var any in status.Details)
            {
                try
                {
                    if (any.TryUnpack<T>(out var detail)) details.Add(detail);
                }
                catch (InvalidProtocolBufferException)
                {
                    // As if it were not there.
                }
            }
            return details;
        }

        /// <summary>The status code.</summary>
        public StatusCode Code { get; }

        /// <summary>Herald's own reason, such as <c>VALIDATION_FAILED</c>; empty when the error is
        /// a library's or a proxy's.</summary>
        public string Reason { get; }

        /// <summary>All fields that were refused: their paths as in the schema, and what is
        /// wrong.</summary>
        public IReadOnlyList<(string Field, string Description)> Violations { get; }

        /// <summary>More of the reason: <c>earliest_cursor</c> and <c>latest_cursor</c>, for
        /// example.</summary>
        public IReadOnlyDictionary<string, string> Metadata { get; }

        /// <summary>How long the server asks to wait before the next attempt; else zero.</summary>
        public TimeSpan RetryDelay { get; }

        /// <summary>Whether the same call may succeed later. An action is safely tried again only
        /// with the same request id.</summary>
        public bool Retryable { get; }

        /// <summary>The request id of the action; empty for calls that have none.</summary>
        public string RequestId { get; }

        /// <summary>Whether the action may have been carried out all the same. Trying again with
        /// the same request id, or GetReceipt, finds out.</summary>
        public bool MayHaveHappened { get; }

        /// <inheritdoc/>
        public override string Message =>
            $"{base.Message} ({(Reason != "" ? Reason : Code.ToString())})";
    }
}
