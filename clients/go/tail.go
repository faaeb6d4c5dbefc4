package herald

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const (
	// Those of the server.
	defaultHeartbeat  = 15 * time.Second
	shortestHeartbeat = time.Second
	longestHeartbeat  = time.Minute
	// One heartbeat may be late, two may be lost to a hiccup of the network.
	silentIntervals = 3
)

var errSilent = errors.New("three heartbeats are missing")

// Tail brings what the request asks for, from as many streams as it takes: when one breaks,
// falls silent for three heartbeat intervals or is closed, another one is opened behind the
// newest cursor, after a wait.
//
// Deal with the events of a response, then store its cursor; start behind it (after_cursor) the
// next time. After a crash some events may come again, and none is lost.
//
// It ends after max_events, counted over all streams; once caught up, with stop_when_caught_up;
// with the error of the context when that ends; or with an [*Error] that trying again cannot
// help, such as CURSOR_EXPIRED, which has earliest_cursor and latest_cursor in its metadata, or
// that the client is closed. An error comes last, with a nil response. There is no bound on the
// attempts.
func (c *Client) Tail(
	ctx context.Context, request *gamev1.StreamEventsRequest,
) iter.Seq2[*gamev1.StreamEventsResponse, error] {
	return func(yield func(*gamev1.StreamEventsResponse, error) bool) {
		t := tail{feed: c.Feed, request: proto.CloneOf(request), yield: yield}
		for {
			wait, err := t.read(ctx)
			switch {
			case t.stopped || t.isComplete():
				return
			case err == nil:
				err = c.sleep(ctx, wait)
			case ctx.Err() != nil:
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			c.connect(ctx)
		}
	}
}

// tail is what is known between two streams. Its request goes on behind what has come.
type tail struct {
	feed     gamev1.EventFeedServiceClient
	request  *gamev1.StreamEventsRequest
	waits    waits
	got      int64
	caughtUp bool
	yield    func(*gamev1.StreamEventsResponse, error) bool
	stopped  bool
}

// isComplete says whether all that was asked for has come, so that a broken stream is none.
func (t *tail) isComplete() bool {
	return t.request.MaxEvents > 0 && t.got >= t.request.MaxEvents ||
		t.request.StopWhenCaughtUp && t.caughtUp
}

// read hands over one stream, and says how long to wait before the next one.
func (t *tail) read(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := silentIntervals * t.heartbeat()
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()

	request := proto.CloneOf(t.request)
	request.MaxEvents = max(t.request.MaxEvents-t.got, 0)
	if t.request.MaxEvents < 0 {
		// For the server to refuse.
		request.MaxEvents = t.request.MaxEvents
	}
	stream, err := t.feed.StreamEvents(ctx, request)
	for err == nil {
		var response *gamev1.StreamEventsResponse
		silence.Reset(patience)
		if response, err = stream.Recv(); err != nil {
			break
		}
		// The time that the caller takes is not the server's.
		silence.Stop()
		t.take(response)
		if t.stopped = !t.yield(response, nil); t.stopped {
			return 0, nil
		}
		if closing := response.GetClosing(); closing != nil {
			return t.closed(closing)
		}
	}
	return t.broken(ctx, err)
}

func (t *tail) take(response *gamev1.StreamEventsResponse) {
	if response.Cursor != "" {
		t.request.Start = &gamev1.StreamEventsRequest_AfterCursor{AfterCursor: response.Cursor}
	}
	switch response := response.Response.(type) {
	case *gamev1.StreamEventsResponse_Batch:
		// Only now: a server that takes connections and then fails is not well.
		t.waits.reset()
		t.got += int64(len(response.Batch.Events))
	case *gamev1.StreamEventsResponse_CaughtUp:
		t.caughtUp = true
	case *gamev1.StreamEventsResponse_FellBehind:
		t.caughtUp = false
	}
}

// closed is the wait that the server asks for, as it spreads its readers by that.
func (t *tail) closed(closing *gamev1.Closing) (time.Duration, error) {
	if !closing.Resumable {
		return 0, &Error{
			Code:    codes.FailedPrecondition,
			Message: "the server closed the stream and its cursor cannot be used to go on",
		}
	}
	if asked := closing.ReconnectDelay.AsDuration(); asked > 0 {
		return min(asked, longestAsked), nil
	}
	return t.waits.after(0), nil
}

// broken is the wait after a stream that ended without a word, failed or fell silent.
func (t *tail) broken(ctx context.Context, err error) (time.Duration, error) {
	if errors.Is(err, io.EOF) || errors.Is(context.Cause(ctx), errSilent) {
		return t.waits.after(0), nil
	}
	failed := errorOf(err)
	if !failed.isRetryable() {
		return 0, failed
	}
	return t.waits.after(failed.RetryDelay), nil
}

func (t *tail) heartbeat() time.Duration {
	if t.request.HeartbeatInterval == nil {
		return defaultHeartbeat
	}
	return min(max(t.request.HeartbeatInterval.AsDuration(), shortestHeartbeat), longestHeartbeat)
}
