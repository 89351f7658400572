"""A template renderer: pages of a shop, made by pystache from a few templates with partials."""

import random

import pystache

TEMPLATES = {
    "product": "<h1>{{name}}</h1>{{>price}}{{#tags}}<a href='/tag/{{.}}'>{{.}}</a>{{/tags}}{{>footer}}",
    "list": "<ul>{{#products}}<li>{{name}} {{>price}}</li>{{/products}}</ul>{{>footer}}",
    "price": "<b>{{currency}} {{amount}}</b>{{#reduced}} <i>instead of {{before}}</i>{{/reduced}}",
    "footer": "<p>{{shop}}, {{#links}}<a href='{{url}}'>{{text}}</a> {{/links}}</p>",
}
LINKS = [{"url": f"/{name}", "text": name} for name in ("about", "terms", "contact")]


def product(number: int) -> dict[str, object]:
    """Returns the data of a product."""
    reduced = number % 3 == 0
    return {"name": f"Tea {number}", "amount": number, "before": number + 5, "reduced": reduced, "currency": "EUR", "tags": ["tea", f"t{number % 7}"]}


def main() -> None:
    """Renders 400 pages, and prints how long they are."""
    chance = random.Random(1)
    renderer = pystache.Renderer(partials=TEMPLATES)
    length = 0
    for _ in range(400):
        if chance.random() < 0.8:
            length += len(renderer.render(TEMPLATES["product"], product(chance.randrange(500)), shop="Teas", links=LINKS))
        else:
            products = [product(chance.randrange(500)) for _ in range(10)]
            length += len(renderer.render(TEMPLATES["list"], products=products, shop="Teas", links=LINKS))
    print(f"400 pages, {length:,} characters")


if __name__ == "__main__":
    main()
