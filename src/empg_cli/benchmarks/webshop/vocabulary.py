"""Words of the generated shop: kinds of product, attributes, options. Plain data, in the order that seeds rely on."""

from __future__ import annotations

from typing import NamedTuple


class AttributePool(NamedTuple):
    """Attributes by their place in an instruction: `Find me {lead} {query} with {with_} for {for_}`."""

    lead: tuple[str, ...]
    with_: tuple[str, ...]
    for_: tuple[str, ...]


class OptionGroup(NamedTuple):
    name: str
    values: tuple[str, ...]
    fewest: int
    most: int
    """How many of the values a product offers."""


class ProductType(NamedTuple):
    department: str
    query: str
    """Plural, as a shopper would filter."""
    noun: str
    breadcrumbs: str
    low: float
    high: float
    """Ends of the price range, in dollars."""
    option_groups: tuple[str, ...]
    """Keys of OPTION_GROUPS."""
    pool: str
    """Key of ATTRIBUTE_POOLS."""


def _list(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated text, which may run over lines."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


ATTRIBUTE_POOLS = {
    "clothes": AttributePool(
        lead=_list(
            """machine wash, hand wash, slim fit, loose fit, quick drying, moisture wicking, wash cold, light
            weight, officially licensed, water resistant, long lasting, easy care"""
        ),
        with_=_list(
            """long sleeve, short sleeve, elastic waist, high waist, button closure, drawstring closure,
            polyester spandex, cotton spandex, classic fit, relaxed fit, tummy control, unique design,
            zipper closure"""
        ),
        for_=_list("daily wear, everyday wear, gym workout, teen girls, dry clean"),
    ),
    "shoes": AttributePool(
        lead=_list(
            """non slip, slip resistant, water resistant, light weight, long lasting, open toe, closed toe,
            machine washable, knee high"""
        ),
        with_=_list(
            """rubber sole, arch support, memory foam, faux fur, ankle strap, steel toe, high heel, ethylene
            vinyl, lace closure"""
        ),
        for_=_list("daily wear, everyday wear, plantar fasciitis, teen girls"),
    ),
    "care": AttributePool(
        lead=_list(
            """cruelty free, paraben free, sulfate free, long lasting, easy use, high quality, alcohol free,
            anti aging, fragrance free, certified organic, oil free, travel size, dermatologist tested"""
        ),
        with_=_list(
            """tea tree, hyaluronic acid, coconut oil, green tea, natural ingredients, vitamin c, essential
            oils, argan oil, seed oil"""
        ),
        for_=_list(
            """dry skin, sensitive skin, fine lines, hair growth, damaged hair, dead skin, dark circles, hair
            loss"""
        ),
    ),
    "makeup": AttributePool(
        lead=_list(
            """cruelty free, paraben free, long lasting, easy use, high quality, fragrance free, oil free, travel
            size, highly pigmented, water resistant"""
        ),
        with_=_list("vitamin c, seed oil, natural ingredients, coconut oil, hyaluronic acid, rose gold"),
        for_=_list("sensitive skin, dry skin, fine lines, daily wear"),
    ),
    "tools": AttributePool(
        lead=_list(
            """easy use, easy clean, high quality, easy carry, leak proof, bpa free, double sided, non toxic,
            cruelty free, eco friendly, long lasting"""
        ),
        with_=_list("stainless steel, rose gold, soft bristles, storage case, synthetic hair, travel bottles"),
        for_=_list("nail art, hair styling, beauty salon, bad breath, sensitive teeth, eye shadow"),
    ),
    "sound": AttributePool(
        lead=_list(
            """noise cancelling, hands free, high performance, water resistant, fast charging, easy carry,
            high definition, ultra hd, high resolution, plug play, dual band, easy install"""
        ),
        with_=_list(
            """wireless bluetooth, stereo sound, quad core, 4g lte, usb port, remote control, carrying case,
            lithium ion, aluminum alloy, night vision, optical zoom"""
        ),
        for_=_list("home theater, motion detection, video calling, bird watching, blu ray"),
    ),
    "parts": AttributePool(
        lead=_list(
            """high speed, heavy duty, easy install, gold plated, dust proof, fast charging, case friendly,
            easy carry, water resistant, compatible apple"""
        ),
        with_=_list(
            """tempered glass, glass screen, usb port, aluminum alloy, stainless steel, carbon fiber, quick
            release"""
        ),
        for_=_list("car radio, blu ray, home theater, wireless charging"),
    ),
    "furniture": AttributePool(
        lead=_list(
            """easy clean, easy assemble, heavy duty, space saving, eco friendly, fully assembled, mid
            century, white item, wall mounted, height adjustable, non slip, assembly required"""
        ),
        with_=_list(
            """solid wood, steel frame, storage space, faux leather, wood finish, engineered wood, high
            density, tempered glass, box spring, memory foam, button tufted"""
        ),
        for_=_list("living room, dining room, home office, bed room, small spaces"),
    ),
    "decor": AttributePool(
        lead=_list(
            """machine washable, super soft, ready hang, eco friendly, easy clean, easy install, non slip,
            long lasting, energy efficient, stain resistant"""
        ),
        with_=_list(
            """double sided, fleece throw, glass shade, led light, brushed nickel, wood frame, polyester
            fabric, bronze finish"""
        ),
        for_=_list("living room, dining room, home decor, bed room, kids room"),
    ),
    "food": AttributePool(
        lead=_list(
            """gluten free, non gmo, sugar free, keto friendly, low carb, plant based, dairy free, nut free,
            soy free, low sodium, fat free, freeze dried, usda organic, ready eat, shelf stable"""
        ),
        with_=_list(
            """natural ingredients, artificial colors, high protein, dietary fiber, simple ingredients,
            natural flavors, quality ingredients, real fruit, 0g trans"""
        ),
        for_=_list("birthday party, gift basket, baby shower, valentine day"),
    ),
}

OPTION_GROUPS = {
    "color": OptionGroup(
        "color",
        _list(
            """black, white, grey, navy, red, blue, green, pink, purple, brown, beige, khaki, orange, yellow, wine
            red, dark grey, light blue, army green, rose gold, teal, ivory, charcoal, coffee, multicolor"""
        ),
        2,
        7,
    ),
    "wear": OptionGroup("size", _list("xs, small, medium, large, xl, 2xl, 3xl"), 3, 6),
    "shoe": OptionGroup("size", _list("36, 37, 38, 39, 40, 41, 42, 43, 44, 45"), 3, 7),
    "bed": OptionGroup("size", _list("twin, full, queen, king"), 2, 4),
    "pack": OptionGroup("size", _list("single, two pack, four pack, six pack, dozen"), 2, 4),
    "cm": OptionGroup("size", _list("40x40cm, 50x50cm, 60x60cm, 80x60cm, 90x120cm, 100x150cm"), 2, 5),
    "ounce": OptionGroup("size", _list("2oz, 4oz, 8oz, 16oz, 30oz, 2oz trial set"), 2, 4),
    "feet": OptionGroup("size", _list("3ft, 6ft, 10ft, 15ft, 25ft"), 2, 5),
    "flavor": OptionGroup(
        "flavor name",
        _list(
            """chocolate, vanilla, strawberry, peanut butter, salted caramel, lemon, original, mixed berry, cinnamon,
            sea salt"""
        ),
        2,
        6,
    ),
    "scent": OptionGroup("scent", _list("lavender, rose, unscented, coconut, citrus, eucalyptus, vanilla bean"), 2, 5),
    "style": OptionGroup("style", _list("classic, deluxe, starter kit, travel, pro"), 2, 4),
    "inch": OptionGroup("size", _list("12in, 14in, 16in, 18in, 20in, 24in"), 2, 5),
    "size": OptionGroup("size", _list("38mm, 40mm, 42mm, 44mm"), 2, 4),
}

_DEPARTMENTS = {
    "fashion": "Clothing, Shoes & Jewelry",
    "beauty": "Beauty & Personal Care",
    "electronics": "Electronics",
    "garden": "Home & Kitchen",
    "grocery": "Grocery & Gourmet Food",
}

# query | noun | breadcrumbs below the department's | price range in dollars | option groups | attribute pool
_TYPES = """
[fashion]
men's t-shirts & tanks | t-shirt | Men › Clothing › Shirts › T-Shirts | 8-40 | color wear | clothes
men's casual button-down shirts | button down shirt | Men › Clothing › Shirts › Casual Button-Down Shirts | 15-60 | color wear | clothes
men's fashion hoodies & sweatshirts | hoodie | Men › Clothing › Fashion Hoodies & Sweatshirts | 18-70 | color wear | clothes
men's shorts | cargo shorts | Men › Clothing › Shorts › Cargo | 14-50 | color wear | clothes
men's jeans | denim jeans | Men › Clothing › Jeans | 20-90 | color wear | clothes
men's sneakers | running sneakers | Men › Shoes › Fashion Sneakers | 25-120 | color shoe | shoes
men's boots | ankle boots | Men › Shoes › Boots › Chelsea | 35-160 | color shoe | shoes
women's dresses | midi dress | Women › Clothing › Dresses › Casual | 15-80 | color wear | clothes
women's tops, tees & blouses | blouse | Women › Clothing › Tops, Tees & Blouses › Blouses | 10-45 | color wear | clothes
women's leggings | yoga leggings | Women › Clothing › Leggings | 12-45 | color wear | clothes
women's sweaters | knit cardigan | Women › Clothing › Sweaters › Cardigans | 18-75 | color wear | clothes
women's swimsuits & cover ups | one piece swimsuit | Women › Clothing › Swimsuits & Cover Ups › One-Pieces | 16-60 | color wear | clothes
women's sandals | platform sandals | Women › Shoes › Sandals | 15-80 | color shoe | shoes
women's slippers | house slippers | Women › Shoes › Slippers | 10-40 | color shoe | shoes
women's coats, jackets & vests | puffer jacket | Women › Clothing › Coats, Jackets & Vests | 30-150 | color wear | clothes
[beauty]
face moisturizers | face moisturizer cream | Skin Care › Face › Creams & Moisturizers | 8-60 | ounce | care
face serums | face serum | Skin Care › Face › Treatments & Masks › Serums | 10-70 | ounce | care
shampoo & conditioner | shampoo | Hair Care › Shampoo & Conditioner | 7-40 | scent ounce | care
hair masks | hair mask treatment | Hair Care › Hair Treatment Oils & Masks | 9-45 | ounce | care
hair extensions, wigs & accessories | hair extensions | Hair Care › Hair Extensions, Wigs & Accessories | 20-160 | color inch | care
lipsticks | matte lipstick | Makeup › Lips › Lipsticks | 5-30 | color | makeup
makeup palettes | eyeshadow palette | Makeup › Makeup Palettes | 8-55 | style | makeup
makeup brushes & tools | makeup brush set | Tools & Accessories › Makeup Brushes & Tools | 6-35 | color | tools
body lotions | body lotion | Skin Care › Body › Moisturizers › Lotions | 7-35 | scent ounce | care
nail art & polish | gel nail polish kit | Foot, Hand & Nail Care › Nail Art & Polish | 6-40 | color | tools
toothbrushes & accessories | toothbrush set | Oral Care › Toothbrushes & Accessories | 5-45 | color pack | tools
bathing accessories | bath sponge | Bath & Bathing Accessories › Bathing Accessories | 5-20 | color pack | tools
refillable containers | spray bottle | Tools & Accessories › Refillable Containers | 4-18 | color pack | tools
[electronics]
over-ear headphones | bluetooth headphones | Headphones › Over-Ear Headphones | 18-220 | color | sound
portable bluetooth speakers | portable speaker | Portable Audio & Video › Portable Speakers & Docks | 15-180 | color | sound
hdmi cables | hdmi cable | Accessories & Supplies › Audio & Video Accessories › Cables & Interconnects | 6-40 | feet | parts
screen protectors | screen protector | Cell Phones & Accessories › Screen Protectors | 5-20 | pack style | parts
tripods & monopods | camera tripod | Camera & Photo › Accessories › Tripods & Monopods | 15-130 | color style | parts
security & surveillance | security camera | Camera & Photo › Video Surveillance › Surveillance Cameras | 25-250 | color pack | sound
streaming media players | streaming media player | Television & Video › Streaming Media Players | 25-330 | style | sound
binoculars & scopes | binoculars | Camera & Photo › Binoculars & Scopes | 20-260 | style | sound
computer keyboards | mechanical keyboard | Computers & Accessories › Keyboards | 20-150 | color style | parts
tablets | android tablet | Computers & Tablets › Tablets | 60-400 | color | sound
smartwatch accessories | smartwatch band | Wearable Technology › Smartwatch Accessories | 6-35 | color size | parts
chargers & power adapters | wall charger | Cell Phones & Accessories › Chargers & Power Adapters | 8-50 | color pack | parts
projectors | mini projector | Television & Video › Projectors | 60-500 | color | sound
[garden]
console tables | console table | Furniture › Living Room Furniture › Tables | 60-420 | color | furniture
bar stools | bar stool | Furniture › Game & Recreation Room Furniture › Bar Stools | 50-300 | color pack | furniture
sofas & couches | loveseat sofa | Furniture › Living Room Furniture › Sofas & Couches | 180-900 | color | furniture
bed frames | platform bed frame | Furniture › Bedroom Furniture › Beds, Frames & Bases | 90-520 | color bed | furniture
mattresses | foam mattress | Furniture › Bedroom Furniture › Mattresses & Box Springs | 120-700 | bed | furniture
throw blankets | throw blanket | Bedding › Blankets & Throws › Throws | 15-70 | color cm | decor
throw pillow covers | pillow cover | Bedding › Decorative Pillows, Inserts & Covers | 7-35 | color cm | decor
area rugs | area rug | Home Décor Products › Area Rugs, Runners & Pads | 25-260 | color cm | decor
window curtains | blackout curtains | Home Décor Products › Window Treatments › Curtains & Drapes | 18-90 | color cm | decor
tv stands | tv stand | Furniture › Living Room Furniture › Television Stands | 70-360 | color | furniture
nightstands | nightstand | Furniture › Bedroom Furniture › Nightstands | 40-220 | color pack | furniture
desk lamps | desk lamp | Lighting & Ceiling Fans › Lamps & Shades › Desk Lamps | 15-90 | color | decor
pendant lights | pendant light | Lighting & Ceiling Fans › Ceiling Lights › Pendant Lights | 30-230 | color style | decor
storage cabinets | storage cabinet | Furniture › Accent Furniture › Storage Cabinets | 60-380 | color | furniture
wall art | canvas wall art | Home Décor Products › Wall Art › Posters & Prints | 12-110 | cm style | decor
[grocery]
granola & nutrition bars | granola bar | Snack Foods › Bars › Granola & Trail Mix Bars | 8-45 | flavor pack | food
chips & crisps | potato chips | Snack Foods › Chips & Crisps | 6-40 | flavor ounce | food
protein shakes & powders | protein powder | Beverages › Protein Drinks | 18-70 | flavor pack | food
coffee beans | whole bean coffee | Beverages › Coffee, Tea & Cocoa › Coffee | 10-50 | flavor ounce | food
herbal tea | herbal tea bags | Beverages › Coffee, Tea & Cocoa › Tea | 6-35 | flavor pack | food
dried fruit | dried fruit | Produce › Dried Fruits & Vegetables | 7-40 | flavor ounce | food
nuts & seeds | roasted almonds | Snack Foods › Nuts & Seeds | 8-45 | flavor ounce | food
candy & chocolate | chocolate truffles | Snack Foods › Candy & Chocolate | 6-50 | flavor pack | food
pasta & noodles | pasta | Pantry Staples › Pasta & Noodles | 6-35 | ounce | food
sauces & dips | dipping sauce | Pantry Staples › Sauces, Gravies & Marinades | 5-35 | flavor ounce | food
cookies | butter cookies | Snack Foods › Cookies | 6-40 | flavor pack | food
breakfast cereals | breakfast cereal | Breakfast Foods › Cereals | 6-35 | flavor pack | food
"""  # noqa: E501  (a product type a line)


def _parse_types(table: str) -> tuple[ProductType, ...]:
    types: list[ProductType] = []
    department = ""
    for line in table.strip().splitlines():
        if line.startswith("["):
            department = line.strip("[]")
            continue
        query, noun, path, price, groups, pool = line.split(" | ")
        low, high = map(float, price.split("-"))
        breadcrumbs = f"{_DEPARTMENTS[department]} › {path}"
        types.append(ProductType(department, query, noun, breadcrumbs, low, high, tuple(groups.split()), pool))
    return tuple(types)


PRODUCT_TYPES = _parse_types(_TYPES)

SERIES = _list(
    """Aurora, Maple, Summit, Harbor, Willow, Nimbus, Cedar, Luna, Pioneer, Coral, Ember, Atlas, Juniper, Vista,
    Onyx, Meadow"""
)
SERIES_WORDS = ("Series", "Collection", "Edition", "Line")
