"""Page texts of a shop with two products, segment by segment, as WebShop's text environment words them."""

from __future__ import annotations

import pytest

from empg_cli.benchmarks.webshop import views
from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.nouns import make_tagger
from empg_cli.benchmarks.webshop.session import ShopSession
from empg_cli.benchmarks.webshop.shop import Shop, open_in_memory

LAMP = Product(
    asin="B00LAMP001",
    title="Aurora Desk Lamp",
    description="A lamp for <desks>.\nTwo lines.",
    bullets=("Bright", "", "Warm light "),
    query="desk lamps",
    department="garden",
    breadcrumbs="Home & Kitchen › Lighting › Desk Lamps",
    prices=(25.5,),
    options={"color": ("black", "dark red"), "size": ("small", "king's")},
    attributes=("easy install", "led light"),
    instruction="Find me easy install desk lamps",
    instruction_attributes=("easy install",),
)
SHADE = Product(
    asin="B00SHADE02",
    title="Lamp Shade",
    description="",
    bullets=("For desk lamps",),
    query="lamp shades",
    department="garden",
    breadcrumbs="Home & Kitchen › Lighting › Shades",
    prices=(8.0, 12.25),
    options={},
    attributes=("linen fabric",),
)
GOAL = "Find me easy install desk lamps with color: dark red, and size: small, and price lower than "


@pytest.fixture(scope="module")
def shop() -> Shop:
    return open_in_memory([LAMP, SHADE], "synthetic", make_tagger("words"), price_seed=0)


@pytest.fixture
def session(shop: Shop) -> ShopSession:
    wanted = (("color", "dark red"), ("size", "small"))
    return ShopSession(shop, next(goal for goal in shop.goals if goal.options == wanted))


def segments(session: ShopSession) -> list[str]:
    return views.text(session).split(" [SEP] ")


def play(session: ShopSession, *actions: str) -> list[str]:
    for action in actions:
        assert session.act(action), action
    return segments(session)


def test_start_page(session: ShopSession) -> None:
    title, label, instruction, button = segments(session)
    assert (title, label, button) == ("WebShop", "Instruction:", "Search")
    assert instruction.startswith(GOAL)
    assert session.page.actions == ("search[<query>]",)  # `click[search]` would do nothing, so it is not offered


def test_results_page(session: ShopSession) -> None:
    head = ["Instruction:", session.goal.instruction, "Back to Search"]
    assert play(session, "search[Aurora Lamp]") == [
        *head,
        "Page 1 (Total results: 2)",
        "Next >",
        *("B00LAMP001", "Aurora Desk Lamp", "$25.5"),
        *("B00SHADE02", "Lamp Shade", "$8.0 to $12.25"),
    ]
    assert session.page.actions == (
        *("click[back to search]", "click[next >]"),
        *("click[b00lamp001]", "click[b00shade02]"),
    )
    # past the last page the shop still answers, without products
    assert play(session, "click[next >]") == [*head, "Page 2 (Total results: 2)", "< Prev", "Next >"]
    assert play(session, "click[< prev]")[3] == "Page 1 (Total results: 2)"


def test_item_page_does_not_show_the_choice(session: ShopSession) -> None:
    expected = [
        *("Instruction:", session.goal.instruction, "Back to Search", "< Prev"),
        *("color", "black", "dark red", "size", "small", "king's"),
        *("Aurora Desk Lamp", "Price: $25.5", "Rating: N.A."),
        *("Description", "Features", "Reviews", "Buy Now"),
    ]
    assert play(session, "search[lamp]", "click[b00lamp001]") == expected
    assert play(session, "click[black]") == expected
    assert session.chosen == {"color": "black"}
    assert play(session, "click[DARK RED]", "click[small]") == expected  # arguments are lower-cased
    assert session.chosen == {"color": "dark red", "size": "small"}
    assert session.page.actions == (
        *("click[back to search]", "click[< prev]", "click[description]", "click[features]", "click[reviews]"),
        *("click[buy now]", "click[black]", "click[dark red]", "click[small]", "click[king's]"),
    )


def test_sub_pages_keep_the_options(session: ShopSession) -> None:
    head = ["Instruction:", session.goal.instruction, "Back to Search", "< Prev"]
    play(session, "search[lamp]", "click[b00lamp001]", "click[black]")
    assert play(session, "click[description]") == [*head, "A lamp for <desks>.\nTwo lines."]
    # an empty bullet point stays as an empty segment
    assert play(session, "click[< prev]", "click[features]") == [*head, "Bright", "", "Warm light"]
    assert play(session, "click[< prev]", "click[reviews]") == head
    play(session, "click[< prev]")
    assert session.chosen == {"color": "black"}
    # back to the results, item and options are forgotten
    play(session, "click[< prev]", "click[b00lamp001]")
    assert session.chosen == {}


def test_attributes_page_is_a_switch() -> None:
    shop = open_in_memory([LAMP, SHADE], "synthetic", make_tagger("words"), price_seed=0, show_attributes=True)
    session = ShopSession(shop, shop.goals[0])
    assert "Attributes" in play(session, "search[lamp]", "click[b00lamp001]")
    shown = play(session, "click[attributes]")[4:]
    assert shown == ["easy install", "led light", "garden", "desk lamps", "Home & Kitchen › Lighting › Desk Lamps"]


def test_end_page(session: ShopSession) -> None:
    end = play(session, "search[lamp]", "click[b00lamp001]", "click[king's]", "click[buy now]")
    assert end == [
        *("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)"),
        *("Purchased", "asin", "B00LAMP001", "options", '{"size": "king\\u0027s"}'),
        *("attrs", "None", "category", "None", "query", "None", "product category", "None"),
        *("Target", "asin", "options", "attrs", "price upper", "instuction text", "category", "product category"),
        *("query", "Goal", "None", "Reward", "Your score (min 0.0, max 1.0)"),
        "0.5",  # 1 attribute + 0 of 2 options + price, of 4
        *("Reward Details", "None"),
    ]
    assert session.page.actions == ()


def test_rich_text_marks_buttons_and_clicks(session: ShopSession) -> None:
    for action in ("search[aurora lamp]", "click[b00lamp001]", "click[small]", "click[king's]", "click[black]"):
        assert session.act(action)
    assert views.text_rich(session) == (
        "You have clicked king's.\nYou have clicked black.\n"  # the last option of the page first
        f"Instruction:\n{session.goal.instruction}\n"
        "[button] Back to Search [button_]\n[button] < Prev [button_]\n"
        "color\n  [clicked button] black [clicked button_]\n  [button] dark red [button_]\n"
        "size\n  [button] small [button_]\n  [clicked button] king's [clicked button_]\n"
        "Aurora Desk Lamp\nPrice: $25.5\nRating: N.A.\n"
        "[button] Description [button_]\n[button] Features [button_]\n[button] Reviews [button_]\n"
        "[button] Buy Now [button_]\n"
    )
    assert session.act("click[< prev]")
    assert views.text_rich(session).endswith(
        "[button] Next > [button_]\n"
        "\n[clicked button] B00LAMP001 [clicked button_]\nAurora Desk Lamp\n$25.5\n"
        "\n[button] B00SHADE02 [button_]\nLamp Shade\n$8.0 to $12.25\n"
    )


def test_back_to_search_forgets_everything(session: ShopSession) -> None:
    before = views.text(session)
    play(session, "search[lamp]", "click[b00lamp001]", "click[small]", "click[back to search]")
    assert views.text(session) == before
    assert (session.keywords, session.found, session.chosen, session.visited) == ("", [], {}, set())


def test_a_value_of_two_groups_belongs_to_the_last() -> None:
    twice = Product(
        asin="B00TWICE03",
        title="Rug",
        description="",
        bullets=(),
        query="rugs",
        department="garden",
        breadcrumbs="Home",
        prices=(10.0,),
        options={"color": ("ivory", "[x]"), "style": ("ivory", "buy now")},
        attributes=(),
        instruction="Find me rugs",
        instruction_attributes=("soft",),
    )
    shop = open_in_memory([twice], "synthetic", make_tagger("words"), price_seed=0)
    session = ShopSession(shop, shop.goals[0])
    play(session, "search[rug]", "click[b00twice03]", "click[ivory]")
    assert session.chosen == {"style": "ivory"}
    assert "click[[x]]" not in session.page.actions  # no action text can reach it
    assert not session.act("click[[x]]")
    play(session, "click[buy now]")  # the button wins over the option of that name
    assert session.is_done
