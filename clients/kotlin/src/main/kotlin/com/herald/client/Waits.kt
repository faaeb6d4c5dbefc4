package com.herald.client

import kotlin.random.Random
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

private val FIRST = 250.milliseconds
private val LONGEST = 15.seconds

/** No server may put a caller to sleep for good. */
internal val LONGEST_ASKED = 5.minutes

/**
 * Waits that double from 250 ms to 15 s, each shortened by chance to between half and all of it, so
 * that those who lost a server together do not come back together.
 */
internal class Waits {
    private var full = FIRST

    /** The next one; no shorter than what was asked for, up to 5 minutes. */
    fun after(asked: Duration): Duration {
        val own = full * Random.nextDouble(0.5, 1.0)
        full = minOf(full * 2, LONGEST)
        return maxOf(own, minOf(asked, LONGEST_ASKED))
    }

    /** Starts from 250 ms again. */
    fun reset() {
        full = FIRST
    }
}
