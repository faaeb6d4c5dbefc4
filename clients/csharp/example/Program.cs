// dotnet run --project example -- [PLAYER [EVENTS]]
//
// Buys, joins a guild, is refused, then follows the feed until so many events have come (1 unless
// told), from where the last run has stopped.

using Game.V1;
using Grpc.Net.Client;
using Herald;

var player = args.ElementAtOrDefault(0) ?? "alice";
var events = long.Parse(args.ElementAtOrDefault(1) ?? "1");
var server = Environment.GetEnvironmentVariable("HERALD_SERVER") ?? "http://127.0.0.1:50051";
const string cursorFile = "feed.cursor";

// A connection that has died unnoticed is given up. In Unity this is a YetAnotherHttpHandler, with
// Http2Only, Http2KeepAliveInterval and Http2KeepAliveTimeout.
var handler = new SocketsHttpHandler
{
    KeepAlivePingDelay = TimeSpan.FromSeconds(20),
    KeepAlivePingTimeout = TimeSpan.FromSeconds(10),
};
var options = new GrpcChannelOptions
{
    HttpHandler = handler,
    // Room for a catalogue of 10,000 items with the longest names, and for any batch.
    MaxReceiveMessageSize = 16 * 1024 * 1024,
};
using var channel = GrpcChannel.ForAddress(server, options);
var herald = new HeraldClient(channel);

var sword = new PurchaseItemRequest { PlayerId = player, ItemId = "sword" };
var bought = await herald.Call(herald.Game.PurchaseItemAsync, sword);
var price = bought.Purchase.TotalPrice;
Console.WriteLine($"bought a sword for {price}: event {bought.Receipt.EventId}");
var owls = new JoinGuildRequest { PlayerId = player, GuildId = "owls" };
await herald.Call(herald.Game.JoinGuildAsync, owls);
try
{
    var dragon = new PurchaseItemRequest { PlayerId = player, ItemId = "dragon" };
    await herald.Call(herald.Game.PurchaseItemAsync, dragon);
}
catch (HeraldException error)
{
    foreach (var (field, description) in error.Violations)
    {
        Console.WriteLine($"refused ({error.Reason}): {field} {description}");
    }
    // Only where the outcome is open: the same request id again, or GetReceipt, finds out.
    if (error.MayHaveHappened) Console.WriteLine($"request {error.RequestId} may have been done");
}

var request = new StreamEventsRequest
{
    Filter = new EventFilter { EventTypes = { "guild_joined" } },
    MaxEvents = events,
};
if (File.Exists(cursorFile)) request.AfterCursor = File.ReadAllText(cursorFile);
else request.StartPosition = StartPosition.Earliest;
void Reconnect(TimeSpan delay, HeraldException? error) =>
    Console.WriteLine($"back in {delay.TotalMilliseconds:0} ms: {error?.Message}");
await foreach (var response in herald.Tail(request, Reconnect))
{
    if (response.ResponseCase == StreamEventsResponse.ResponseOneofCase.Batch)
    {
        foreach (var delivered in response.Batch.Events)
        {
            var happened = delivered.Event;
            Console.WriteLine($"{happened.PlayerId} joined {happened.GuildJoined?.GuildId}");
        }
    }
    // Only now: after a crash events may come again, and none is lost.
    File.WriteAllText($"{cursorFile}.new", response.Cursor);
    File.Move($"{cursorFile}.new", cursorFile, overwrite: true);
}
