package herald

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 5
	// Room for a catalogue of 10,000 items with the longest names, and for any batch.
	maxResponseBytes = 16 << 20
	// A few round trips, in which most connections are made.
	connectPatience = time.Second
)

// Client is a connection to one server, made at the first call and anew after it broke. It may
// be used by many goroutines at once.
type Client struct {
	// Game is what players do.
	Game gamev1.GameServiceClient
	// Feed is the log of all events; see [Client.Tail].
	Feed gamev1.EventFeedServiceClient

	conn *grpc.ClientConn
	// Closed with the client.
	closed chan struct{}
	close  sync.Once
}

// New makes a client of the server at endpoint, such as http://127.0.0.1:50051 or
// https://game.example; options come after, and so win over, its own. Nothing is sent yet.
//
// Each call with one answer has a deadline of 5 s an attempt, see [Timeout], and 5 attempts,
// see [Attempts], of which all after the first are made only when trying again can help. An
// action without a request id is given one, a UUID, and keeps it; the message of the caller is
// left as it is. What remains is an [*Error]. Ending the context ends the waits too, and is then
// what the error unwraps to.
func New(endpoint string, options ...grpc.DialOption) (*Client, error) {
	address, err := url.Parse(endpoint)
	if err != nil || address.Host == "" || (address.Scheme != "http" && address.Scheme != "https") {
		return nil, fmt.Errorf("%q is no server address, write it like http://host:50051", endpoint)
	}
	target, transport := address.Host, insecure.NewCredentials()
	if address.Scheme == "https" {
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	if address.Port() == "" {
		target += map[string]string{"http": ":80", "https": ":443"}[address.Scheme]
	}
	client := &Client{closed: make(chan struct{})}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUnaryInterceptor(client.retry),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		// So that a call finds out that its connection is gone. Only during calls: proxies close
		// a connection that pings without one, and Herald pings each every 20 s by itself.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// A call fails at once between two tries to connect: those must be no rarer than calls
		// are tried again.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: firstWait, Multiplier: 2, Jitter: 0.25, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: defaultTimeout,
		}),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	client.Game, client.Feed = gamev1.NewGameServiceClient(conn), gamev1.NewEventFeedServiceClient(conn)
	client.conn = conn
	return client, nil
}

// Close ends the connection, and all calls and tails on it: at once, with an [*Error] of code
// Canceled, as those that come later.
func (c *Client) Close() error {
	// First, so that what fails by the second is known to be final.
	c.close.Do(func() { close(c.closed) })
	return c.conn.Close()
}

// ended is why there is nothing to be tried again: the context has ended, or the client is
// closed; nil if neither.
func (c *Client) ended(ctx context.Context) error {
	select {
	case <-c.closed:
		return &Error{Code: codes.Canceled, Message: "the client is closed"}
	default:
		return ctx.Err()
	}
}

// sleep waits, and fails when the caller ends it before.
func (c *Client) sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.closed:
	case <-ctx.Done():
	case <-timer.C:
	}
	return c.ended(ctx)
}

// connect is what comes before each attempt but the first. A connection that failed fails calls
// without asking the server, until gRPC has made it again in its own time: it is made now, in up to
// a second, so that attempts are not used up before it is there.
func (c *Client) connect(ctx context.Context) {
	if c.conn == nil || c.conn.GetState() != connectivity.TransientFailure {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	c.conn.ResetConnectBackoff()
	c.conn.WaitForStateChange(ctx, connectivity.TransientFailure)
}

type timeoutOption struct {
	grpc.EmptyCallOption
	timeout time.Duration
}

type attemptsOption struct {
	grpc.EmptyCallOption
	attempts int
}

// Timeout is how long each attempt of a call may take; 5 s without it.
func Timeout(timeout time.Duration) grpc.CallOption {
	return timeoutOption{timeout: timeout}
}

// Attempts is how often a call is tried at the most, at least once; 5 without it.
func Attempts(attempts int) grpc.CallOption {
	return attemptsOption{attempts: attempts}
}

// retry makes the attempts of a call.
func (c *Client) retry(
	ctx context.Context, method string, request, response any,
	conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	timeout, attempts := defaultTimeout, defaultAttempts
	for _, option := range options {
		switch option := option.(type) {
		case timeoutOption:
			timeout = option.timeout
		case attemptsOption:
			attempts = option.attempts
		}
	}
	request, requestID := withRequestID(request)
	// Of any attempt: what one that came later says is not about those before.
	mayHaveHappened := false
	for waits := (waits{}); ; attempts-- {
		// Set where there was a connection to send the call on.
		var server peer.Peer
		attempt, cancel := context.WithTimeout(ctx, timeout)
		err := invoke(attempt, method, request, response, conn,
			slices.Concat(options, []grpc.CallOption{grpc.Peer(&server)})...)
		cancel()
		if err == nil {
			return nil
		}
		failed := errorOf(err)
		mayHaveHappened = mayHaveHappened ||
			requestID != "" && server.Addr != nil && failed.leavesOpenWhatHappened()
		if failed.isRetryable() {
			ended := c.ended(ctx)
			if ended == nil && attempts > 1 {
				if ended = c.sleep(ctx, waits.after(failed.RetryDelay)); ended == nil {
					c.connect(ctx)
					continue
				}
			}
			if closed, ok := ended.(*Error); ok {
				failed = closed
			} else {
				failed.cause = ended
			}
		}
		failed.RequestID, failed.MayHaveHappened = requestID, mayHaveHappened
		return failed
	}
}

// withRequestID is the request, and its request id if it is an action; one without is copied
// and given one.
func withRequestID(request any) (any, string) {
	action, ok := request.(interface {
		proto.Message
		GetRequestId() string
		// Only actions can be tried out; others name the request id of one.
		GetValidateOnly() bool
	})
	if !ok {
		return request, ""
	}
	if id := action.GetRequestId(); id != "" {
		return request, id
	}
	id := uuid.NewString()
	named := proto.Clone(action)
	field := named.ProtoReflect().Descriptor().Fields().ByName("request_id")
	named.ProtoReflect().Set(field, protoreflect.ValueOfString(id))
	return named, id
}
