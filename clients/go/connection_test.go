package herald

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
)

// network is one in memory between a server and its clients, so that they too have the clock of
// the test. The first refused dials fail.
type network struct {
	refused, dials atomic.Int64
	connections    chan net.Conn
	closed         chan struct{}
}

func (n *network) dial(ctx context.Context, _ string) (net.Conn, error) {
	if n.dials.Add(1) <= n.refused.Load() {
		return nil, errors.New("refused by a test")
	}
	here, there := net.Pipe()
	select {
	case n.connections <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case connection := <-n.connections:
		return connection, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { close(n.closed); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

// openFeed is opened, and then silent.
type openFeed struct {
	gamev1.UnimplementedEventFeedServiceServer
}

func (openFeed) StreamEvents(
	_ *gamev1.StreamEventsRequest, stream grpc.ServerStreamingServer[gamev1.StreamEventsResponse],
) error {
	if err := stream.Send(opened("a")); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// catalog has nothing in it.
type catalog struct {
	gamev1.UnimplementedGameServiceServer
}

func (catalog) GetCatalog(context.Context, *gamev1.GetCatalogRequest) (*gamev1.GetCatalogResponse, error) {
	return &gamev1.GetCatalogResponse{}, nil
}

// connected runs a test of a client on a network of its own.
func connected(t *testing.T, options []grpc.DialOption, test func(*testing.T, *Client, *network)) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{connections: make(chan net.Conn), closed: make(chan struct{})}
		server := grpc.NewServer()
		gamev1.RegisterEventFeedServiceServer(server, openFeed{})
		gamev1.RegisterGameServiceServer(server, catalog{})
		go server.Serve(n)
		defer server.Stop()
		client, err := New("http://127.0.0.1", append(options, grpc.WithContextDialer(n.dial))...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		test(t, client, n)
	})
}

// isClosed says whether an error is that of a closed client.
func isClosed(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Code == codes.Canceled && failed.Message == "the client is closed"
}

func TestAClosedClientIsFinal(t *testing.T) {
	connected(t, nil, func(t *testing.T, client *Client, _ *network) {
		begun := time.Now()
		var last error
		for _, last = range client.Tail(t.Context(), &gamev1.StreamEventsRequest{}) {
			if last == nil {
				client.Close()
			}
		}
		if !isClosed(last) {
			t.Fatal(last)
		}
		for _, last = range client.Tail(t.Context(), &gamev1.StreamEventsRequest{}) {
			if !isClosed(last) {
				t.Fatal(last)
			}
		}
		_, err := client.Game.PurchaseItem(t.Context(), &gamev1.PurchaseItemRequest{RequestId: "one"})
		var failed *Error
		if !isClosed(err) || !errors.As(err, &failed) || failed.RequestID != "one" || failed.MayHaveHappened {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 0 {
			t.Fatalf("took %v", took)
		}
	})
}

func TestClosingTheClientEndsTheWaits(t *testing.T) {
	connected(t, nil, func(t *testing.T, client *Client, _ *network) {
		begun := time.Now()
		asked := told(codes.ResourceExhausted, "SUBSCRIBER_LIMIT", time.Minute)
		client.Feed = &script{streams: []stream{sends(asked)}}
		time.AfterFunc(time.Second, func() { client.Close() })
		for _, err := range client.Tail(t.Context(), &gamev1.StreamEventsRequest{}) {
			if !isClosed(err) {
				t.Fatal(err)
			}
		}
		calls := &calls{answers: []error{asked}}
		if err := client.retry(t.Context(), "", nil, nil, nil, calls.invoke); !isClosed(err) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Fatalf("took %v", took)
		}
	})
}

func TestAnAttemptHasAConnectionWhereOneCanBeMade(t *testing.T) {
	never := grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour}, MinConnectTimeout: time.Minute,
	})
	connected(t, []grpc.DialOption{never}, func(t *testing.T, client *Client, n *network) {
		n.refused.Store(1)
		if _, err := client.Game.GetCatalog(t.Context(), &gamev1.GetCatalogRequest{}, Attempts(2)); err != nil {
			t.Fatal(err)
		}
	})
	connected(t, []grpc.DialOption{never}, func(t *testing.T, client *Client, n *network) {
		n.refused.Store(1)
		begun := time.Now()
		for _, err := range client.Tail(t.Context(), &gamev1.StreamEventsRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if took := time.Since(begun); took > firstWait {
			t.Fatalf("took %v", took)
		}
	})
}

func TestAProxyThatMindsPingsWithoutCallsIsSentNone(t *testing.T) {
	// One that minds is what a server of gRPC is unless told.
	connected(t, nil, func(t *testing.T, client *Client, n *network) {
		for range 2 {
			if _, err := client.Game.GetCatalog(t.Context(), &gamev1.GetCatalogRequest{}, Attempts(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		if dials := n.dials.Load(); dials != 1 {
			t.Fatalf("%d connections", dials)
		}
	})
}
