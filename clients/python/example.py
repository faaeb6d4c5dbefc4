"""Buys, joins a guild, is refused, and follows the guilds of all players from where the last run
ended.
"""

import argparse
import os
import pathlib

from herald.client import Client, HeraldError
from herald.game.v1 import game_pb2 as pb
from herald.tail import tail

SERVER = os.environ.get("HERALD_SERVER", "http://127.0.0.1:50051")


def act(client: Client, player: str) -> None:
    request = pb.PurchaseItemRequest(player_id=player, item_id="sword", quantity=2)
    bought = client.call(client.game.PurchaseItem, request)
    print(f"bought {bought.purchase.quantity} {bought.purchase.item_id}", end=" ")
    print(f"for {bought.purchase.total_price} {bought.purchase.currency_code}")

    client.call(client.game.JoinGuild, pb.JoinGuildRequest(player_id=player, guild_id="owls"))
    print("joined owls")

    try:
        request = pb.PurchaseItemRequest(player_id=player, item_id="dragon")
        client.call(client.game.PurchaseItem, request)
    except HeraldError as error:
        print(f"refused, {error.reason}:")
        for violation in error.violations:
            print(f"  {violation.field}: {violation.description}")


def follow(client: Client, file: pathlib.Path, events: int) -> None:
    request = pb.StreamEventsRequest(max_events=events)
    request.filter.event_types.append("guild_joined")
    if file.exists():
        request.after_cursor = file.read_text()
    else:
        request.start_position = pb.START_POSITION_EARLIEST
    for response in tail(client, request):
        for delivered in response.batch.events:
            event = delivered.event
            print(f"{event.player_id} is now in {event.guild_joined.guild_id}")
        # Behind what was dealt with. A crash in between brings it again.
        store(file, response.cursor)


def store(file: pathlib.Path, cursor: str) -> None:
    """Whole or not at all."""
    new = file.with_suffix(".new")
    new.write_text(cursor)
    new.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--player", default="ann")
    parser.add_argument("--events", type=int, default=0, help="end after so many; 0: never")
    parser.add_argument("--cursor-file", type=pathlib.Path, default="example.cursor")
    options = parser.parse_args()
    with Client(SERVER) as client:
        act(client, options.player)
        follow(client, options.cursor_file, options.events)


if __name__ == "__main__":
    main()
