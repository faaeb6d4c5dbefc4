// dart run example/example.dart [PLAYER [EVENTS]]
//
// Buys, joins a guild, is refused, then follows the feed until so many events have come (1 unless
// told), from where the last run has stopped.

import 'dart:io';

import 'package:fixnum/fixnum.dart';
import 'package:grpc/grpc.dart';
import 'package:herald_client/herald_client.dart';

Future<void> main(List<String> arguments) async {
  final player = arguments.elementAtOrNull(0) ?? 'alice';
  final events = Int64.parseInt(arguments.elementAtOrNull(1) ?? '1');
  final server = Uri.parse(Platform.environment['HERALD_SERVER'] ?? 'http://127.0.0.1:50051');
  final file = File('feed.cursor');

  // A connection that has died unnoticed is given up. A page has a GrpcWebClientChannel.
  final channel = ClientChannel(
    server.host,
    port: server.port,
    options: const ChannelOptions(
      credentials: ChannelCredentials.insecure(),
      // Where nobody answers it is given up before the deadline of a call.
      connectTimeout: Duration(seconds: 4),
      keepAlive: ClientKeepAliveOptions(
        pingInterval: Duration(seconds: 20),
        timeout: Duration(seconds: 10),
      ),
    ),
  );
  final herald = Herald(channel);

  final sword = PurchaseItemRequest(playerId: player, itemId: 'sword');
  final bought = await herald.call(herald.game.purchaseItem, sword);
  print('bought a sword for ${bought.purchase.totalPrice}: event ${bought.receipt.eventId}');
  final owls = JoinGuildRequest(playerId: player, guildId: 'owls');
  await herald.call(herald.game.joinGuild, owls);
  try {
    final dragon = PurchaseItemRequest(playerId: player, itemId: 'dragon');
    await herald.call(herald.game.purchaseItem, dragon);
  } on HeraldError catch (error) {
    for (final (:field, :description) in error.violations) {
      print('refused (${error.reason}): $field $description');
    }
    // Only where the outcome is open: the same request id again, or getReceipt, finds out.
    if (error.mayHaveHappened) print('request ${error.requestId} may have been carried out');
  }

  final request = StreamEventsRequest(
    filter: EventFilter(eventTypes: ['guild_joined']),
    maxEvents: events,
  );
  if (await file.exists()) {
    request.afterCursor = await file.readAsString();
  } else {
    request.startPosition = StartPosition.START_POSITION_EARLIEST;
  }
  void reconnect(Duration delay, HeraldError? error) =>
      print('back in ${delay.inMilliseconds} ms: ${error ?? ''}');
  await for (final response in herald.tail(request, onReconnect: reconnect)) {
    if (response.hasBatch()) {
      for (final delivered in response.batch.events) {
        print('${delivered.event.playerId} joined ${delivered.event.guildJoined.guildId}');
      }
    }
    // Only now: after a crash events may come again, and none is lost.
    final written = await File('${file.path}.new').writeAsString(response.cursor);
    await written.rename(file.path);
  }
  await channel.shutdown();
}
