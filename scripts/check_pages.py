#!/usr/bin/env python3
"""Loads pages of Realign in headless Chromium and says what is wrong with them.

    python3 scripts/check_pages.py OUT PAGE...

Each PAGE is loaded at 360, 800 and 1400 px, light and dark, and printed; screenshots and PDFs are written to OUT. It fails on a
console message, an exception, a request other than the page itself, content wider than the window, an image or a drawing without
a text for screen readers, an id that stands twice, a link into the page that leads nowhere, contrast of text below 4.5, and, where
tables can be sorted and filtered, when the keyboard cannot do it. Needs Debian's `chromium` and Python's standard library.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = [360, 800, 1400]
SCHEMES = ["light", "dark"]
PAPER = 680  # pixels between the margins of A4

# What a page is asked, in the page itself: a list of complaints.
LOOK = r"""(() => {
  const wrong = [];
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) wrong.push(`content is ${wide} px wide`);
  const named = (e) => e.getAttribute("alt") || e.getAttribute("aria-label") || e.querySelector("title")
    || (e.getAttribute("aria-labelledby") || "").split(" ").some((id) => id && document.getElementById(id)?.textContent);
  for (const e of document.querySelectorAll("img, svg[role=img]")) if (!named(e)) wrong.push("no text: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("svg"))
    if (!e.closest("[role=img], [aria-hidden=true]")) wrong.push("a drawing that says nothing: " + e.outerHTML.slice(0, 80));
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) wrong.push("id twice: " + id);
  for (const e of document.querySelectorAll("a[href^='#']")) if (!ids.includes(e.hash.slice(1))) wrong.push("no " + e.hash);
  for (const e of document.querySelectorAll("table"))
    if (!e.caption || [...e.tHead.rows[0].cells].some((cell) => cell.scope !== "col")) wrong.push("a table without caption or heads");
  if (!document.title || !document.documentElement.lang || document.querySelectorAll("h1").length !== 1 || !document.querySelector("main")
    || !document.querySelector("meta[name=viewport]")) wrong.push("title, language, h1, main or viewport is missing");
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = "#000"; canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ground = (e) => {
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, e.parentElement ? ground(e.parentElement) : [255, 255, 255, 1]);
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const seen = new Set();
  for (const e of document.querySelectorAll("body *:not(svg):not(svg *):not(script):not(option)")) {
    if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const [text, back] = [getComputedStyle(e).color, ground(e)];
    const kind = e.tagName + e.className + text + back;
    if (seen.has(kind)) continue;
    seen.add(kind);
    const [a, b] = [light(over(rgba(text), back)), light(back)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(2)}: ${e.tagName} ${e.className} "${e.textContent.trim().slice(0, 30)}"`);
  }
  return wrong;
})()"""

# Sorts and filters a table as a reader does, by the elements that the keyboard reaches; a list of complaints.
USE = r"""(() => {
  const wrong = [];
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
    for (const head of heads) {
      const button = head.querySelector("button");
      if (button.tabIndex < 0 || button.disabled) wrong.push("the keyboard does not reach " + head.textContent);
      for (const order of ["ascending", "descending"]) {
        button.click();
        if (head.getAttribute("aria-sort") !== order) wrong.push(`${head.textContent} is not said to be ${order}`);
        if (!head.classList.contains("number")) continue;
        const cells = [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[head.cellIndex].textContent.replace(/^<\s*/, "")));
        const known = cells.filter((x) => !isNaN(x));
        const sign = order === "ascending" ? 1 : -1;
        if (known.some((x, at) => at && sign * (x - known[at - 1]) < 0)) wrong.push(`${head.textContent} is not ${order}`);
        if (cells.slice(0, known.length).some(isNaN)) wrong.push(`${head.textContent}: what is not known is not last`);
      }
    }
    const form = table.parentElement.previousElementSibling;
    if (!form?.matches("form.filters")) continue;
    const all = shown().length;
    form.querySelectorAll("select").forEach((select, at) => {
      const head = heads.filter((head) => "filter" in head.dataset)[at];
      select.selectedIndex = select.options.length - 1;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      const value = select.selectedOptions[0].textContent;
      if (!shown().length || shown().some((row) => row.cells[head.cellIndex].textContent !== value)) wrong.push("not filtered: " + value);
      if (!form.querySelector("output").textContent.startsWith(shown().length + " of " + all)) wrong.push("the number of rows is not said");
      select.selectedIndex = 0;
      select.dispatchEvent(new Event("change", { bubbles: true }));
    });
    if (shown().length !== all) wrong.push("rows are lost");
  }
  return wrong;
})()"""


class Browser:
    """Chromium by its debugging protocol, over two pipes."""

    def __init__(self, profile):
        (to_read, self.to), (self.back, to_write) = os.pipe(), os.pipe()

        def pipes():  # the browser reads from 3 and writes to 4
            reads, writes = os.dup(to_read), os.dup(to_write)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
                 "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(["chromium", *flags, "about:blank"], preexec_fn=pipes, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.rest, self.count, self.events, self.session = b"", 0, [], None

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 20)
            if not more:
                sys.exit("chromium has ended")
            self.rest += more
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def call(self, method, **params):
        self.count += 1
        call = {"id": self.count, "method": method, "params": params}
        if self.session:
            call["sessionId"] = self.session
        data = json.dumps(call).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            message = self.message()
            if message.get("id") != self.count:
                self.events.append(message)
            elif "error" in message:
                sys.exit(f"{method}: {message['error']}")
            else:
                return message["result"]

    def wait(self, event):
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self.message())

    def ask(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return [found["exceptionDetails"]["text"]] if "exceptionDetails" in found else found["result"].get("value")

    def open(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(timeout=30)


def noises(events, url):
    """What the browser reported of a page: messages, exceptions, requests."""
    for one in events:
        method, params = one.get("method"), one.get("params", {})
        if method == "Runtime.consoleAPICalled":
            yield "console: " + " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
        elif method == "Runtime.exceptionThrown":
            yield "exception: " + params["exceptionDetails"].get("exception", {}).get("description", "?")
        elif method == "Log.entryAdded":
            yield "log: " + params["entry"]["text"]
        elif method == "Network.requestWillBeSent" and params["request"]["url"].split("#")[0] not in (url, "about:blank"):
            if not params["request"]["url"].startswith("data:"):
                yield "request: " + params["request"]["url"]


def load(browser, url, width, media, scheme):
    """Loads a page in a window; not as a phone, which would zoom out until all fits."""
    browser.events.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", media=media, features=features)
    browser.call("Page.navigate", url=url)
    browser.wait("Page.loadEventFired")


def seen(browser, url, width, scheme, picture):
    """Complaints about a page in a window, and a picture of it."""
    load(browser, url, width, "", scheme)
    found = browser.ask(LOOK)
    height = min(browser.ask("document.documentElement.scrollHeight"), 12_000)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    data = browser.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
    picture.write_bytes(base64.b64decode(data))
    browser.ask("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    found += browser.ask(LOOK)
    if (width, scheme) == (WIDTHS[0], SCHEMES[0]):  # what a table does depends on neither
        found += browser.ask(USE)
    return found + list(noises(browser.events, url))


def printed(browser, url, pdf):
    """Complaints about a page on paper, and its PDF."""
    load(browser, url, PAPER, "print", "dark")
    wide = browser.ask("document.documentElement.scrollWidth")
    browser.call("Emulation.clearDeviceMetricsOverride")
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    pdf.write_bytes(base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"]))
    return [f"content is {wide} px wide, and the paper {PAPER}"] if wide > PAPER else []


def check(browser, page, name, out):
    """All complaints about a page, each with where it was seen."""
    url, wrong = page.resolve().as_uri(), []
    for width in WIDTHS:
        for scheme in SCHEMES:
            found = seen(browser, url, width, scheme, out / f"{name}-{width}-{scheme}.png")
            wrong += [f"{page}, {width} px, {scheme}: {one}" for one in dict.fromkeys(found)]
    return wrong + [f"{page}, printed: {one}" for one in printed(browser, url, out / f"{name}.pdf")]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, pages = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        browser.open()
        wrong = []
        for at, page in enumerate(pages):
            name = f"{page.resolve().parent.name}-{page.stem}"
            found = check(browser, page, name, out)
            print(f"{page}: {len(found)} complaints; {len(WIDTHS) * len(SCHEMES)} screenshots and a PDF in {out}/{name}*")
            wrong += found
        browser.close()
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
