#nullable enable
using System;

namespace Herald
{
    /// <summary>
    /// Waits that double from 250 ms to 15 s, each shortened by chance to between half and all of
    /// it, so that clients that lost a server together do not come back together.
    /// </summary>
    internal sealed class Backoff
    {
        private const double FirstMs = 250;
        private const double LongestMs = 15_000;

        /// <summary>The longest wait that a server can ask for: none may put a client to sleep for
        /// good.</summary>
        private static readonly TimeSpan LongestAsked = TimeSpan.FromMinutes(5);

        private readonly Random chance = new Random();
        private double next = FirstMs;

        /// <summary>The wait before the next attempt, at least as long as asked for.</summary>
        public TimeSpan Next(TimeSpan asked = default)
        {
            var own = TimeSpan.FromMilliseconds(next * (0.5 + 0.5 * chance.NextDouble()));
            next = Math.Min(next * 2, LongestMs);
            asked = Bounded(asked);
            return asked > own ? asked : own;
        }

        /// <summary>Starts from the shortest wait again.</summary>
        public void Reset() => next = FirstMs;

        /// <summary>What a server asks for, as far as that goes.</summary>
        public static TimeSpan Bounded(TimeSpan asked) =>
            asked < LongestAsked ? asked : LongestAsked;
    }
}
