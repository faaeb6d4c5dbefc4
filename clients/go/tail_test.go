package herald

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The clock stands still in all tests but for waits, which take no time.

// script is a server that answers each request with the next stream, and keeps the requests and
// when they came.
type script struct {
	gamev1.EventFeedServiceClient
	streams  []stream
	begun    time.Time
	requests []*gamev1.StreamEventsRequest
	at       []time.Duration
}

// stream is what one sends, and its end: silence if there is none.
type stream struct {
	grpc.ClientStream
	responses []*gamev1.StreamEventsResponse
	end       error
	ctx       context.Context
}

func (s *script) StreamEvents(
	ctx context.Context, request *gamev1.StreamEventsRequest, _ ...grpc.CallOption,
) (grpc.ServerStreamingClient[gamev1.StreamEventsResponse], error) {
	s.requests = append(s.requests, request)
	s.at = append(s.at, time.Since(s.begun))
	next := s.streams[0]
	s.streams = s.streams[1:]
	next.ctx = ctx
	return &next, nil
}

func (s *stream) Recv() (*gamev1.StreamEventsResponse, error) {
	if len(s.responses) > 0 && s.ctx.Err() == nil {
		response := s.responses[0]
		s.responses = s.responses[1:]
		return response, nil
	}
	if s.end == nil || s.ctx.Err() != nil {
		<-s.ctx.Done()
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	return nil, s.end
}

func sends(end error, responses ...*gamev1.StreamEventsResponse) stream {
	return stream{responses: responses, end: end}
}

func opened(cursor string) *gamev1.StreamEventsResponse {
	return &gamev1.StreamEventsResponse{
		Cursor: cursor, Response: &gamev1.StreamEventsResponse_Opened{Opened: &gamev1.Opened{}},
	}
}

func heartbeat(cursor string) *gamev1.StreamEventsResponse {
	return &gamev1.StreamEventsResponse{
		Cursor: cursor, Response: &gamev1.StreamEventsResponse_Heartbeat{Heartbeat: &gamev1.Heartbeat{}},
	}
}

func events(cursor string, count int) *gamev1.StreamEventsResponse {
	batch := &gamev1.EventBatch{}
	for range count {
		batch.Events = append(batch.Events, &gamev1.DeliveredEvent{})
	}
	return &gamev1.StreamEventsResponse{
		Cursor: cursor, Response: &gamev1.StreamEventsResponse_Batch{Batch: batch},
	}
}

func caughtUp(cursor string) *gamev1.StreamEventsResponse {
	return &gamev1.StreamEventsResponse{
		Cursor: cursor, Response: &gamev1.StreamEventsResponse_CaughtUp{CaughtUp: &gamev1.CaughtUp{}},
	}
}

func closing(cursor string, delay time.Duration, resumable bool) *gamev1.StreamEventsResponse {
	return &gamev1.StreamEventsResponse{
		Cursor: cursor,
		Response: &gamev1.StreamEventsResponse_Closing{
			Closing: &gamev1.Closing{ReconnectDelay: durationpb.New(delay), Resumable: resumable},
		},
	}
}

// told is an error of the server, with a RetryInfo if there is a delay.
func told(code codes.Code, reason string, delay time.Duration) error {
	said := status.New(code, "told by a test")
	detailed, err := said.WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
	if err == nil && delay > 0 {
		detailed, err = detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	if err != nil {
		panic(err)
	}
	return detailed.Err()
}

// read is a tail to its end: how many events and streams, and its error.
func read(ctx context.Context, s *script, request *gamev1.StreamEventsRequest) (count, streams int, last error) {
	s.begun = time.Now()
	for response, err := range (&Client{Feed: s}).Tail(ctx, request) {
		if last = err; err == nil {
			count += len(response.GetBatch().GetEvents())
		}
	}
	return count, len(s.requests), last
}

func TestATailGoesOnBehindTheNewestCursorWithWhatIsLeftOfMaxEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{streams: []stream{
			sends(told(codes.Unavailable, "LOG_UNAVAILABLE", 0), opened("a"), events("b", 3)),
			// A heartbeat moves the cursor over what the filter has passed.
			sends(io.EOF, opened("b"), heartbeat("c")),
			sends(told(codes.Unavailable, "LOG_UNAVAILABLE", 0), opened("c"), events("d", 2)),
		}}
		request := &gamev1.StreamEventsRequest{MaxEvents: 5}
		if count, streams, err := read(t.Context(), s, request); count != 5 || streams != 3 || err != nil {
			t.Fatalf("%d events of %d streams, %v", count, streams, err)
		}
		var cursors []string
		var left []int64
		for _, request := range s.requests {
			cursors = append(cursors, request.GetAfterCursor())
			left = append(left, request.MaxEvents)
		}
		if !slices.Equal(cursors, []string{"", "b", "c"}) || !slices.Equal(left, []int64{5, 2, 2}) {
			t.Fatalf("asked for %v behind %q", left, cursors)
		}
		if request.Start != nil || request.MaxEvents != 5 {
			t.Fatalf("the request of the caller was changed: %v", request)
		}
	})
}

func TestThreeSilentIntervalsAreABrokenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{streams: []stream{
			sends(nil, opened("a")),
			sends(nil, opened("a"), events("b", 1)),
		}}
		request := &gamev1.StreamEventsRequest{HeartbeatInterval: durationpb.New(4 * time.Second), MaxEvents: 1}
		// The last one is silent too; but all that was asked for has come.
		if _, streams, err := read(t.Context(), s, request); streams != 2 || err != nil {
			t.Fatalf("%d streams, %v", streams, err)
		}
		if again := s.at[1]; again < 12*time.Second || again > 13*time.Second {
			t.Fatalf("tried again after %v", again)
		}
	})
}

func TestACallerWhoTakesItsTimeDoesNotBreakTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{streams: []stream{sends(io.EOF, opened("a"), heartbeat("b"), events("c", 1))}}
		for _, err := range (&Client{Feed: s}).Tail(t.Context(), &gamev1.StreamEventsRequest{MaxEvents: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if len(s.requests) != 1 {
			t.Fatalf("%d streams", len(s.requests))
		}
	})
}

func TestAClosingServerSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{streams: []stream{
			sends(nil, opened("a"), closing("b", 7*time.Second, true)),
			sends(nil, opened("b"), closing("b", time.Hour, true)),
			sends(nil, opened("b"), closing("b", 0, false)),
		}}
		_, _, err := read(t.Context(), s, &gamev1.StreamEventsRequest{})
		if status.Code(err) != codes.FailedPrecondition {
			t.Fatalf("no way to go on, but: %v", err)
		}
		if !slices.Equal(s.at, []time.Duration{0, 7 * time.Second, 7*time.Second + longestAsked}) {
			t.Fatalf("came at %v", s.at)
		}
		if behind := s.requests[1].GetAfterCursor(); behind != "b" {
			t.Fatalf("behind %q", behind)
		}
	})
}

func TestWaitsGrowUntilAnEventComesAndALostPositionIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		for range 6 {
			// A stream that opens, and shows that the server is there, has brought nothing yet.
			s.streams = append(s.streams, sends(status.Error(codes.Internal, "cut"), opened("a"), heartbeat("a")))
		}
		s.streams = append(s.streams,
			sends(io.EOF, opened("a"), events("b", 1)),
			sends(told(codes.ResourceExhausted, "SUBSCRIBER_LIMIT", 40*time.Second)),
			sends(told(codes.OutOfRange, "CURSOR_EXPIRED", 0)),
		)
		_, _, err := read(t.Context(), s, &gamev1.StreamEventsRequest{})
		var failed *Error
		if !errors.As(err, &failed) || failed.Reason != "CURSOR_EXPIRED" || len(s.streams) > 0 {
			t.Fatalf("%v", err)
		}
		var between []time.Duration
		for i, at := range s.at[1:] {
			between = append(between, at-s.at[i])
		}
		for i, full := 0, firstWait; i < 6; i, full = i+1, min(2*full, longestWait) {
			if between[i] < full/2 || between[i] > full {
				t.Fatalf("waited %v", between)
			}
		}
		if between[6] > firstWait || between[7] != 40*time.Second {
			t.Fatalf("waited %v", between)
		}
	})
}

func TestAStreamThatJustEndsHasNotCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{streams: []stream{
			// As a proxy may cut it.
			sends(io.EOF, opened("a"), events("b", 1)),
			sends(nil, opened("b"), events("c", 1), caughtUp("c")),
		}}
		count, streams, err := read(t.Context(), s, &gamev1.StreamEventsRequest{StopWhenCaughtUp: true})
		if count != 2 || streams != 2 || err != nil {
			t.Fatalf("%d events of %d streams, %v", count, streams, err)
		}
	})
}

func TestWhatANewerServerInventsIsHandedOverAndItsCursorCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Field 99, which this version knows nothing of, in the place of all that it knows.
		unknown := &gamev1.StreamEventsResponse{}
		bytes := protowire.AppendTag(nil, 99, protowire.BytesType)
		bytes = protowire.AppendString(bytes, "of a newer server")
		cursor, err := proto.Marshal(&gamev1.StreamEventsResponse{Cursor: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(append(bytes, cursor...), unknown); err != nil {
			t.Fatal(err)
		}
		reason := closing("c", 7*time.Second, true)
		reason.GetClosing().Reason = 99
		s := &script{streams: []stream{
			sends(io.EOF, opened("a"), unknown),
			sends(nil, reason),
			sends(nil, events("d", 1)),
		}}
		var came, behind []string
		for response, err := range (&Client{Feed: s}).Tail(t.Context(), &gamev1.StreamEventsRequest{MaxEvents: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			came = append(came, response.Cursor)
		}
		for _, request := range s.requests {
			behind = append(behind, request.GetAfterCursor())
		}
		if !slices.Equal(came, []string{"a", "b", "c", "d"}) || !slices.Equal(behind, []string{"", "b", "c"}) {
			t.Fatalf("%q came, behind %q", came, behind)
		}
	})
}

func TestWhatTheCallerEndsIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s := &script{streams: []stream{sends(nil, opened("a"))}}
		if _, streams, err := read(ctx, s, &gamev1.StreamEventsRequest{}); streams != 1 ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d streams, %v", streams, err)
		}
		s = &script{streams: []stream{sends(nil, opened("a"), heartbeat("b"))}}
		for range (&Client{Feed: s}).Tail(t.Context(), &gamev1.StreamEventsRequest{}) {
			break
		}
		if len(s.requests) != 1 {
			t.Fatalf("%d streams", len(s.requests))
		}
	})
}
