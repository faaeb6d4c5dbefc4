package com.herald.client

import com.herald.game.v1.ConsumeItemRequest
import com.herald.game.v1.GrantItemRequest
import com.herald.game.v1.JoinGuildRequest
import com.herald.game.v1.LeaveGuildRequest
import com.herald.game.v1.PurchaseItemRequest
import com.herald.game.v1.RefundPurchaseRequest
import com.herald.game.v1.StartSessionRequest

/**
 * The request id of an action, null where the request is none. There is no other way to ask: the
 * lite runtime does not know its fields by name, and names are lost where apps are shrunk.
 */
internal fun requestIdOf(request: Any?): String? =
    when (request) {
        is ConsumeItemRequest -> request.requestId
        is GrantItemRequest -> request.requestId
        is JoinGuildRequest -> request.requestId
        is LeaveGuildRequest -> request.requestId
        is PurchaseItemRequest -> request.requestId
        is RefundPurchaseRequest -> request.requestId
        is StartSessionRequest -> request.requestId
        else -> null
    }

/** The same action with a request id. */
@Suppress("UNCHECKED_CAST") // Each builder builds what it was made from.
internal fun <Q> withRequestId(request: Q, id: String): Q =
    when (request) {
        is ConsumeItemRequest -> request.toBuilder().setRequestId(id).build()
        is GrantItemRequest -> request.toBuilder().setRequestId(id).build()
        is JoinGuildRequest -> request.toBuilder().setRequestId(id).build()
        is LeaveGuildRequest -> request.toBuilder().setRequestId(id).build()
        is PurchaseItemRequest -> request.toBuilder().setRequestId(id).build()
        is RefundPurchaseRequest -> request.toBuilder().setRequestId(id).build()
        is StartSessionRequest -> request.toBuilder().setRequestId(id).build()
        else -> request
    }
        as Q
