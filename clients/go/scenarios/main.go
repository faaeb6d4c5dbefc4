// Command scenarios shows what the client does when things go wrong. Whatever runs it makes
// that happen when asked on stdout, and answers on stdin, one JSON object a line; the results
// go to stdout too. HERALD_SERVER is the server, HERALD_RUN a word that is in the names of all
// players.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
	herald "github.com/herald-events/herald/clients/go"
	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What takes longer hangs.
const longest = time.Minute

type facts map[string]any

type program struct {
	*herald.Client
	run     string
	answers *bufio.Scanner
	// Of the retry, for the conflict.
	requestID string
	// The newest place that is known, for the change of epoch.
	cursor string
}

func main() {
	client, err := herald.New(os.Getenv("HERALD_SERVER"))
	if err != nil {
		log.Fatal(err)
	}
	p := &program{Client: client, run: os.Getenv("HERALD_RUN"), answers: bufio.NewScanner(os.Stdin)}
	for _, scenario := range []struct {
		name string
		run  func(context.Context) (facts, error)
	}{
		{"purchase", p.purchase},
		{"unknown item", p.unknownItem},
		{"retry", p.retry},
		{"conflict", p.conflict},
		{"feed filter", p.feedFilter},
		{"resume", p.resume},
		{"expired cursor", p.expiredCursor},
		{"deadline", p.deadline},
		{"epoch change", p.epochChange},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), longest)
		found, err := scenario.run(ctx)
		cancel()
		result := facts{"scenario": scenario.name, "passed": err == nil, "facts": found}
		if err != nil {
			result["why"] = err.Error()
		}
		say(result)
	}
}

func say(line facts) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}

// ask has something done to the server.
func (p *program) ask(what string) {
	say(facts{"ask": what})
	var answer struct{ OK bool }
	if !p.answers.Scan() || json.Unmarshal(p.answers.Bytes(), &answer) != nil || !answer.OK {
		log.Fatalf("no answer to %s: %q", what, p.answers.Text())
	}
}

func (p *program) player(scenario string) string { return p.run + "-" + scenario }

func (p *program) buy(
	ctx context.Context, player, requestID, item string, quantity int32, options ...grpc.CallOption,
) (*gamev1.PurchaseItemResponse, error) {
	bought, err := p.Game.PurchaseItem(ctx, &gamev1.PurchaseItemRequest{
		PlayerId: player, RequestId: requestID, ItemId: item, Quantity: proto.Int32(quantity),
	}, options...)
	if err == nil {
		p.cursor = bought.Receipt.Cursor
	}
	return bought, err
}

// refused is the error of a call that has to fail in this way.
func refused(err error, code codes.Code, reason string) (*herald.Error, error) {
	var failed *herald.Error
	if !errors.As(err, &failed) || failed.Code != code || failed.Reason != reason {
		return nil, fmt.Errorf("not %v, %s, but: %v", code, reason, err)
	}
	return failed, nil
}

func check(holds bool, otherwise string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(otherwise, values...)
}

func (p *program) purchase(ctx context.Context) (facts, error) {
	player := p.player("purchase")
	bought, err := p.buy(ctx, player, "", "sword", 2)
	if err != nil {
		return nil, err
	}
	receipt, purchase := bought.Receipt, bought.Purchase
	found := facts{"event_id": receipt.EventId, "request_id": receipt.RequestId}
	if receipt.EventId == "" || purchase.UnitPrice == 0 || purchase.TotalPrice != 2*purchase.UnitPrice {
		return found, fmt.Errorf("bought %v", bought)
	}
	has, err := p.Game.GetPlayer(ctx, &gamev1.GetPlayerRequest{PlayerId: player, AtLeastCursor: receipt.Cursor})
	if err != nil {
		return found, err
	}
	inventory := has.Player.Inventory
	return found, check(len(inventory) == 1 && inventory[0].ItemId == "sword" && inventory[0].Quantity == 2,
		"has %v", inventory)
}

func (p *program) unknownItem(ctx context.Context) (facts, error) {
	begun := time.Now()
	_, err := p.buy(ctx, p.player("purchase"), "", "dragon", 1)
	failed, err := refused(err, codes.InvalidArgument, "VALIDATION_FAILED")
	if err != nil {
		return nil, err
	}
	if failed.MayHaveHappened || time.Since(begun) > longest/2 {
		return nil, fmt.Errorf("%v", failed)
	}
	return nil, check(len(failed.Violations) == 1 && failed.Violations[0].Field == "item_id",
		"violations %v", failed.Violations)
}

func (p *program) retry(ctx context.Context) (facts, error) {
	p.requestID = uuid.NewString()
	first, err := p.buy(ctx, p.player("retry"), p.requestID, "knife", 1)
	if err != nil {
		return nil, err
	}
	found := facts{"event_id": first.Receipt.EventId}
	second, err := p.buy(ctx, p.player("retry"), p.requestID, "knife", 1)
	if err != nil {
		return found, err
	}
	return found, check(second.Receipt.EventId == first.Receipt.EventId && second.Receipt.Replayed &&
		!first.Receipt.Replayed, "first %v, second %v", first.Receipt, second.Receipt)
}

func (p *program) conflict(ctx context.Context) (facts, error) {
	_, err := p.buy(ctx, p.player("retry"), p.requestID, "horse", 3)
	_, err = refused(err, codes.AlreadyExists, "REQUEST_ID_CONFLICT")
	return nil, err
}

func (p *program) feedFilter(ctx context.Context) (facts, error) {
	player := p.player("filter")
	if _, err := p.buy(ctx, player, "", "sword", 1); err != nil {
		return nil, err
	}
	joined, err := p.Game.JoinGuild(ctx, &gamev1.JoinGuildRequest{PlayerId: player, GuildId: "owls"})
	if err != nil {
		return nil, err
	}
	if _, err := p.buy(ctx, player, "", "knife", 1); err != nil {
		return nil, err
	}
	ids := []string{}
	for response, err := range p.Tail(ctx, &gamev1.StreamEventsRequest{
		Start: &gamev1.StreamEventsRequest_StartPosition{
			StartPosition: gamev1.StartPosition_START_POSITION_EARLIEST,
		},
		Filter:           &gamev1.EventFilter{EventTypes: []string{"guild_joined"}, PlayerIds: []string{player}},
		StopWhenCaughtUp: true,
	}) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, idsOf(response)...)
	}
	return facts{"event_ids": ids}, check(slices.Equal(ids, []string{joined.Receipt.EventId}),
		"not only %s: %v", joined.Receipt.EventId, ids)
}

func idsOf(response *gamev1.StreamEventsResponse) (ids []string) {
	for _, delivered := range response.GetBatch().GetEvents() {
		ids = append(ids, delivered.Event.EventId)
	}
	return ids
}

func (p *program) resume(ctx context.Context) (facts, error) {
	const purchases = 30
	player := p.player("resume")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	opened, read := make(chan struct{}), make(chan []string, 1)
	streams := 0
	go func() {
		ids := []string{}
		for response, err := range p.Tail(ctx, &gamev1.StreamEventsRequest{
			Filter:            &gamev1.EventFilter{PlayerIds: []string{player}},
			HeartbeatInterval: durationpb.New(time.Second),
			MaxEvents:         purchases,
		}) {
			if err != nil {
				cancel(err)
				break
			}
			if response.GetOpened() != nil {
				if streams++; streams == 1 {
					close(opened)
				}
			}
			ids = append(ids, idsOf(response)...)
		}
		read <- ids
	}()
	select {
	case <-opened:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	bought := []string{}
	for len(bought) < purchases {
		one, err := p.buy(ctx, player, "", "sword", 1)
		if err != nil {
			return nil, err
		}
		if bought = append(bought, one.Receipt.EventId); len(bought) == 10 {
			p.ask("restart")
		}
	}
	ids := <-read
	found := facts{"event_ids": ids}
	if !slices.Equal(ids, bought) {
		return found, fmt.Errorf("bought %v, read %v: %w", bought, ids, context.Cause(ctx))
	}
	return found, check(streams > 1, "never reconnected")
}

// after is a request for the events of a player behind a cursor.
func after(cursor, player string) *gamev1.StreamEventsRequest {
	return &gamev1.StreamEventsRequest{
		Start:  &gamev1.StreamEventsRequest_AfterCursor{AfterCursor: cursor},
		Filter: &gamev1.EventFilter{PlayerIds: []string{player}},
	}
}

// failure is what a tail that brings nothing ends with.
func (p *program) failure(ctx context.Context, request *gamev1.StreamEventsRequest) error {
	for response, err := range p.Tail(ctx, request) {
		if err != nil {
			return err
		}
		if response.GetOpened() != nil {
			return errors.New("it was opened")
		}
	}
	return errors.New("it just ended")
}

func (p *program) expiredCursor(ctx context.Context) (facts, error) {
	player := p.player("expired")
	first, err := p.buy(ctx, player, "", "sword", 1)
	if err != nil {
		return nil, err
	}
	if _, err := p.buy(ctx, player, "", "sword", 1); err != nil {
		return nil, err
	}
	p.ask("expire")
	failed, err := refused(p.failure(ctx, after(first.Receipt.Cursor, player)), codes.OutOfRange, "CURSOR_EXPIRED")
	if err != nil {
		return nil, err
	}
	third, err := p.buy(ctx, player, "", "sword", 1)
	if err != nil {
		return nil, err
	}
	request := after(failed.Metadata["earliest_cursor"], player)
	request.MaxEvents = 1
	ids := []string{}
	for response, err := range p.Tail(ctx, request) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, idsOf(response)...)
	}
	return facts{"event_ids": ids}, check(slices.Equal(ids, []string{third.Receipt.EventId}),
		"not only %s: %v", third.Receipt.EventId, ids)
}

func (p *program) deadline(ctx context.Context) (facts, error) {
	player, requestID := p.player("deadline"), uuid.NewString()
	p.ask("pause")
	_, err := p.buy(ctx, player, requestID, "horse", 1, herald.Timeout(2*time.Second), herald.Attempts(1))
	p.ask("resume")
	failed, err := refused(err, codes.DeadlineExceeded, "WRITE_OUTCOME_UNKNOWN")
	if err != nil {
		return nil, err
	}
	if !failed.MayHaveHappened || failed.RequestID != requestID {
		return nil, fmt.Errorf("%+v", failed)
	}
	bought, err := p.buy(ctx, player, requestID, "horse", 1)
	if err != nil {
		return nil, err
	}
	return facts{"event_id": bought.Receipt.EventId, "request_id": requestID}, nil
}

func (p *program) epochChange(ctx context.Context) (facts, error) {
	p.ask("replace")
	ctx, cancel := context.WithTimeout(ctx, longest/4)
	defer cancel()
	_, err := refused(p.failure(ctx, after(p.cursor, p.player("epoch"))), codes.FailedPrecondition, "FEED_EPOCH_CHANGED")
	return nil, err
}
