// Command example is a small game back end: it buys, joins a guild, and follows who joins.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	herald "github.com/herald-events/herald/clients/go"
	gamev1 "github.com/herald-events/herald/clients/go/gen/game/v1"
	"google.golang.org/protobuf/proto"
)

func main() {
	file := flag.String("cursor", "guilds.cursor", "the file that keeps the place in the feed")
	count := flag.Int64("events", 1, "how many events to follow; 0 for no end")
	flag.Parse()
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := os.Getenv("HERALD_SERVER")
	if server == "" {
		server = "http://127.0.0.1:50051"
	}
	client, err := herald.New(server)
	if err != nil {
		log.Fatal(err)
	}
	if err := buy(ctx, client); err != nil {
		log.Fatal(err)
	}
	if err := follow(ctx, client, *file, *count); err != nil {
		log.Fatal(err)
	}
}

// buy is one purchase that is carried out and one that is refused.
func buy(ctx context.Context, client *herald.Client) error {
	bought, err := client.Game.PurchaseItem(ctx, &gamev1.PurchaseItemRequest{
		PlayerId: "ann", ItemId: "sword", Quantity: proto.Int32(2),
	})
	if err != nil {
		return err
	}
	fmt.Println("bought 2 swords for", bought.Purchase.TotalPrice, bought.Purchase.CurrencyCode)

	_, err = client.Game.PurchaseItem(ctx, &gamev1.PurchaseItemRequest{PlayerId: "ann", ItemId: "dragon"})
	var failed *herald.Error
	if !errors.As(err, &failed) {
		return fmt.Errorf("a dragon was bought: %w", err)
	}
	fmt.Println("refused:", failed.Reason)
	for _, violation := range failed.Violations {
		fmt.Printf("  %s: %s\n", violation.Field, violation.Description)
	}
	return nil
}

// follow prints who joins a guild, from where it stopped the last time.
func follow(ctx context.Context, client *herald.Client, file string, count int64) error {
	request := &gamev1.StreamEventsRequest{
		Filter:    &gamev1.EventFilter{EventTypes: []string{"guild_joined"}},
		MaxEvents: count,
	}
	cursor, err := os.ReadFile(file)
	switch {
	case err == nil:
		request.Start = &gamev1.StreamEventsRequest_AfterCursor{AfterCursor: string(cursor)}
		fmt.Println("on from", file)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	joined := false
	for response, err := range herald.Tail(ctx, client.Feed, request) {
		if err != nil {
			return err
		}
		if response.GetOpened() != nil && !joined {
			// Whoever joins from now on is in the feed.
			joined = true
			_, err := client.Game.JoinGuild(ctx, &gamev1.JoinGuildRequest{PlayerId: "ann", GuildId: "owls"})
			if err != nil {
				return err
			}
		}
		for _, delivered := range response.GetBatch().GetEvents() {
			fmt.Println(delivered.Event.PlayerId, "joined", delivered.Event.GetGuildJoined().GuildId)
		}
		// Its events are dealt with.
		if err := store(file, response.Cursor); err != nil {
			return err
		}
	}
	return nil
}

// store replaces the file as a whole.
func store(file, cursor string) error {
	if err := os.WriteFile(file+".new", []byte(cursor), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
