package herald

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// calls is a server that answers each attempt with the next error, and keeps the request ids.
type calls struct {
	answers []error
	ids     []string
}

func (c *calls) invoke(
	ctx context.Context, _ string, request, _ any, _ *grpc.ClientConn, options ...grpc.CallOption,
) error {
	for _, option := range options {
		if option, ok := option.(grpc.PeerCallOption); ok {
			option.PeerAddr.Addr = &net.TCPAddr{}
		}
	}
	if action, ok := request.(interface{ GetRequestId() string }); ok {
		c.ids = append(c.ids, action.GetRequestId())
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	if answer == errSilent {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return answer
}

// try is a call; its error is an *Error.
func (c *calls) try(ctx context.Context, request proto.Message, options ...grpc.CallOption) *Error {
	err := (&Client{}).retry(ctx, "", request, nil, nil, c.invoke, options...)
	var failed *Error
	if err != nil && !errors.As(err, &failed) {
		panic(err)
	}
	return failed
}

func TestAnActionKeepsItsRequestIDThroughAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		request := &gamev1.PurchaseItemRequest{PlayerId: "ann"}
		c := &calls{answers: []error{
			errSilent,
			status.Error(codes.Unavailable, "cut"),
			told(codes.ResourceExhausted, "OVERLOADED", 20*time.Second),
			told(codes.Unavailable, "A_NEWER_ONE", 0),
			nil,
		}}
		begun := time.Now()
		if failed := c.try(t.Context(), request); failed != nil {
			t.Fatal(failed)
		}
		for _, id := range c.ids {
			if id == "" || id != c.ids[0] {
				t.Fatalf("request ids %q", c.ids)
			}
		}
		if request.RequestId != "" {
			t.Fatal("the request of the caller was changed")
		}
		// The deadline, the wait that was asked for, and three own ones.
		if took := time.Since(begun); took < 25*time.Second || took > 29*time.Second {
			t.Fatalf("took %v", took)
		}
		receipt := &calls{answers: []error{nil}}
		if receipt.try(t.Context(), &gamev1.GetReceiptRequest{}); receipt.ids[0] != "" {
			t.Fatal("what is no action was given a request id")
		}
	})
}

func TestOnlyWhatCanBeHelpedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, err := status.New(codes.ResourceExhausted, "a mesh").WithDetails(
			&errdetails.ErrorInfo{Domain: "other", Reason: "OVERLOADED"})
		if err != nil {
			t.Fatal(err)
		}
		for _, answer := range []error{
			told(codes.InvalidArgument, "VALIDATION_FAILED", 0),
			told(codes.AlreadyExists, "REQUEST_ID_CONFLICT", 0),
			told(codes.Internal, "A_NEWER_ONE", 0),
			status.Error(codes.ResourceExhausted, "too large"),
			status.Error(codes.Unimplemented, "no such method"),
			other.Err(),
		} {
			c := &calls{answers: []error{answer}}
			if failed := c.try(t.Context(), &gamev1.PurchaseItemRequest{}); failed == nil || failed.RequestID == "" {
				t.Fatalf("%v", failed)
			}
		}
		// Nor is what the caller has ended.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := &calls{answers: []error{errSilent}}
		if failed := c.try(ctx, &gamev1.PurchaseItemRequest{}); failed.Code != codes.DeadlineExceeded {
			t.Fatal(failed)
		}
	})
}

func TestAnUnknownReasonIsTriedAgainWhereTheServerSaysWhenBeItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atOnce, err := status.Convert(told(codes.Aborted, "A_NEWER_ONE", 0)).WithDetails(&errdetails.RetryInfo{})
		if err != nil {
			t.Fatal(err)
		}
		c := &calls{answers: []error{atOnce.Err(), nil}}
		if failed := c.try(t.Context(), &gamev1.PurchaseItemRequest{}); failed != nil {
			t.Fatal(failed)
		}
	})
}

func TestWhatTheCallerEndsBetweenAttemptsIsKnownToBeEndedByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := told(codes.ResourceExhausted, "OVERLOADED", time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		c := &calls{answers: []error{asked}}
		// What the last attempt said is still there.
		if failed := c.try(ctx, &gamev1.PurchaseItemRequest{}); !errors.Is(failed, context.Canceled) ||
			failed.Reason != "OVERLOADED" || failed.RequestID == "" {
			t.Fatal(failed)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c = &calls{answers: []error{asked}}
		if failed := c.try(ctx, &gamev1.PurchaseItemRequest{}); !errors.Is(failed, context.DeadlineExceeded) {
			t.Fatal(failed)
		}
		c = &calls{answers: []error{asked}}
		if failed := c.try(t.Context(), &gamev1.PurchaseItemRequest{}, Attempts(1)); errors.Unwrap(failed) != nil {
			t.Fatal(failed)
		}
	})
}

func TestWhatALaterAttemptSaysIsNotAboutTheOnesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := told(codes.Unavailable, "LOG_UNAVAILABLE", 0)
		for _, c := range []struct {
			answers []error
			request proto.Message
			may     bool
		}{
			{[]error{refused, refused}, &gamev1.PurchaseItemRequest{}, false},
			{[]error{errSilent, refused}, &gamev1.PurchaseItemRequest{}, true},
			{[]error{told(codes.DeadlineExceeded, "WRITE_OUTCOME_UNKNOWN", 0), refused}, &gamev1.JoinGuildRequest{}, true},
			// There is no action.
			{[]error{errSilent, refused}, &gamev1.GetCatalogRequest{}, false},
		} {
			calls := &calls{answers: c.answers}
			failed := calls.try(t.Context(), c.request, Attempts(2), Timeout(time.Second))
			if failed.MayHaveHappened != c.may {
				t.Errorf("%T, %v: %v", c.request, c.answers, failed)
			}
		}
	})
}

func TestAServerThatIsNotThereHasCarriedOutNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	client, err := New("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Game.PurchaseItem(t.Context(), &gamev1.PurchaseItemRequest{}, Attempts(2))
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != codes.Unavailable || failed.MayHaveHappened {
		t.Fatalf("%#v", err)
	}
}

// silentGame never answers.
type silentGame struct {
	gamev1.UnimplementedGameServiceServer
	entered chan struct{}
}

func (g *silentGame) PurchaseItem(
	ctx context.Context, _ *gamev1.PurchaseItemRequest,
) (*gamev1.PurchaseItemResponse, error) {
	close(g.entered)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWhatReachedAServerThatThenDiedMayHaveHappened(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	game, server := &silentGame{entered: make(chan struct{})}, grpc.NewServer()
	gamev1.RegisterGameServiceServer(server, game)
	go server.Serve(listener)
	go func() {
		<-game.entered
		server.Stop()
	}()
	client, err := New("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Game.PurchaseItem(t.Context(), &gamev1.PurchaseItemRequest{}, Attempts(1), Timeout(time.Minute))
	var failed *Error
	if !errors.As(err, &failed) || failed.Reason != "" || !failed.MayHaveHappened {
		t.Fatalf("%#v", err)
	}
}

func TestASecondGameProtoCanBeLoaded(t *testing.T) {
	if path := gamev1.File_herald_game_v1_game_proto.Path(); path != "herald/game/v1/game.proto" {
		t.Fatal(path)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:        proto.String("game.proto"),
		Package:     proto.String("other.v1"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("GameEvent")}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	for _, endpoint := range []string{"", "127.0.0.1:50051", "ftp://host", "http://"} {
		if _, err := New(endpoint); err == nil {
			t.Errorf("%q was taken", endpoint)
		}
	}
}
