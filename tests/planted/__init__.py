"""Payment bugs to break the box with: `plant(put)` puts each in place, `put` being setattr or a test's monkeypatch.

`FOUND_BY` says who of the quick ones must find which: `world` the simulated world, from one of its first eight seeds; `search` the
search, in that table; `hours` an hour at the counter with a liar in WeChat's place.  The storm must find each (`make plants`).
"""

FOUND_BY: dict[str, dict[str, str]] = {
    "absent_is_dead_while_placing": {"search": "code"},
    "another_amount_is_booked": {"search": "qr_wrong"},
    "bill_outranks_the_undo": {"search": "code_night"},
    "cancel_forgotten_at_boot": {"search": "code"},
    "card_is_charged_again_after_a_boot": {"search": "card"},
    "cash_replaces_without_parking": {"search": "qr"},
    "closed_order_is_forgotten_at_once": {"search": "qr", "world": ""},
    "early_payment_is_given_back": {"search": "qr"},
    "intent_not_synced": {"search": "qr", "world": ""},
    "late_money_ignored": {"search": "qr", "world": ""},
    "nobodys_word_books_cancelled_money": {"search": "code_asks"},
    "older_paid_is_refunded_beside_the_undo": {"search": "code_night"},
    "paid_under_undo_is_refunded": {"search": "code_night"},
    "parked_money_pays_the_next_basket": {"search": "code_asks"},
    "part_of_a_dropped_basket_is_kept": {"search": "parts"},
    "record_beside_the_sale": {"search": "refund", "world": ""},
    "refund_with_a_new_number": {"search": "code_asks", "world": ""},
    "refund_without_an_answer_is_done": {"search": "code_asks", "world": ""},
    "rerouted_before_the_first_is_dead": {"search": "routes"},
    "silence_forgets_a_closed_order": {"search": "qr_unborn"},
    "timeout_is_decline": {"search": "qr", "world": ""},
    "unknown_settles_an_undecided_order": {"search": "code_night"},
    "unproven_reply_is_believed": {"hours": ""},
    "unsure_paper_is_printed_again": {"world": ""},
}
