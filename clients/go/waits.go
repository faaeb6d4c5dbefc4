package herald

import (
	"math/rand/v2"
	"time"
)

const (
	firstWait   = 250 * time.Millisecond
	longestWait = 15 * time.Second
	// No server may put a caller to sleep for good.
	longestAsked = 5 * time.Minute
)

// waits double from 250 ms to 15 s, each shortened by chance to between half and all of it, so
// that those who lost a server together do not come back together.
type waits struct{ full time.Duration }

// after is the next wait; no shorter than what was asked for, up to 5 minutes.
func (w *waits) after(asked time.Duration) time.Duration {
	w.full = min(max(2*w.full, firstWait), longestWait)
	own := w.full/2 + rand.N(w.full/2)
	return max(own, min(asked, longestAsked))
}

// reset starts from 250 ms again.
func (w *waits) reset() { w.full = 0 }
