// Command example buys, is refused, joins a guild, and follows the guilds of all players from
// where the last run ended; the first run from now on.
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
	player := flag.String("player", "ann", "who acts")
	file := flag.String("cursor-file", "example.cursor", "keeps the place in the feed")
	events := flag.Int64("events", 0, "end after so many; 0: never")
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
	if err := buy(ctx, client, *player); err != nil {
		log.Fatal(err)
	}
	if err := follow(ctx, client, *player, *file, *events); err != nil {
		log.Fatal(err)
	}
}

// buy is one purchase that is carried out and one that is refused.
func buy(ctx context.Context, client *herald.Client, player string) error {
	bought, err := client.Game.PurchaseItem(ctx, &gamev1.PurchaseItemRequest{
		PlayerId: player, ItemId: "sword", Quantity: proto.Int32(2),
	})
	if err != nil {
		return err
	}
	purchase := bought.Purchase
	fmt.Println("bought", purchase.Quantity, purchase.ItemId, "for", purchase.TotalPrice, purchase.CurrencyCode)

	_, err = client.Game.PurchaseItem(ctx, &gamev1.PurchaseItemRequest{PlayerId: player, ItemId: "dragon"})
	var failed *herald.Error
	if !errors.As(err, &failed) {
		return fmt.Errorf("not refused: %w", err)
	}
	fmt.Println("refused,", failed.Reason)
	for _, violation := range failed.Violations {
		fmt.Printf("  %s: %s\n", violation.Field, violation.Description)
	}
	return nil
}

// follow prints who joins a guild, from where it stopped the last time.
func follow(ctx context.Context, client *herald.Client, player, file string, events int64) error {
	request := &gamev1.StreamEventsRequest{
		Filter:    &gamev1.EventFilter{EventTypes: []string{"guild_joined"}},
		MaxEvents: events,
	}
	cursor, err := os.ReadFile(file)
	switch {
	case err == nil:
		request.Start = &gamev1.StreamEventsRequest_AfterCursor{AfterCursor: string(cursor)}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	joined := false
	for response, err := range client.Tail(ctx, request) {
		if err != nil {
			return err
		}
		if response.GetOpened() != nil && !joined {
			// Whoever joins from now on is in the feed.
			joined = true
			_, err := client.Game.JoinGuild(ctx, &gamev1.JoinGuildRequest{PlayerId: player, GuildId: "owls"})
			if err != nil {
				return err
			}
		}
		for _, delivered := range response.GetBatch().GetEvents() {
			fmt.Println(delivered.Event.PlayerId, "is now in", delivered.Event.GetGuildJoined().GetGuildId())
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
