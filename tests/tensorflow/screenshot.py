#!/usr/bin/env python3
"""Open a log folder in real TensorBoard and headless Chromium, check what is drawn, keep pictures.

    screenshot.py LOGDIR OUT_PREFIX      writes OUT_PREFIX-graphs.png, OUT_PREFIX-images.png, OUT_PREFIX-scalars.png,
                                         OUT_PREFIX-histograms.png

TensorBoard runs on a free loopback port, Chromium is driven through chromedriver (Debian: `apt-get install chromium
chromium-driver`). The graph tab must draw the tutorial's boxes, the images tab its pictures, decoded by the browser; the
scalars and histograms tabs must show their tags. Exit status 0 when all is drawn; 1 when not. Without Chromium: 1, or,
with --allow-missing, 0 and the line `skipped: no chromium`.
"""
import argparse
import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BOXES = ("conv_1", "conv_2", "dot_1", "dot_2", "logits_layer", "objective", "train", "test")
CHROMIUM_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
    "--hide-scrollbars --window-size=1600,1200"
).split()

# Every element of the page, through all shadow roots; TensorBoard nests them deeply.
DEEP = """
const all = [];
const stack = [document];
while (stack.length) {
  const root = stack.pop();
  for (const e of root.querySelectorAll('*')) { all.push(e); if (e.shadowRoot) stack.push(e.shadowRoot); }
}
"""
GRAPH_BOXES = DEEP + """
return all.filter(e => e.matches('g.node')).map(e => e.getAttribute('data-name')
    || (e.querySelector('text') || {}).textContent || '').filter(n => n);
"""
PICTURES = DEEP + """
return all.filter(e => e.tagName === 'IMG' && e.complete && e.naturalWidth > 1 && /individualImage|blob|data:/.test(e.src))
    .map(e => e.naturalWidth + 'x' + e.naturalHeight);
"""
TEXT = DEEP + "return all.map(e => e.childElementCount ? '' : e.textContent).join('\\n');"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def server(command, title):
    """A child process, ended with the block; its output is shown when the block fails."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield child
        except BaseException:
            log.seek(0)
            print(f"--- last output of {title}:\n" + log.read()[-3000:].decode(errors="replace"))
            raise
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def request(url, body=None, method=None, timeout=60):
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # Loopback only: no proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=timeout) as reply:
        return reply.read()


def wait_for(what, probe, seconds):
    """probe() until it gives something true."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            found = probe()
            if found:
                return found
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            last = error
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {seconds} s{f' ({last})' if last else ''}")


class Browser:
    """As much of the WebDriver protocol as this needs."""

    def __init__(self, port, chromium, profile):
        self.root = f"http://127.0.0.1:{port}/session"
        options = {"binary": chromium, "args": [*CHROMIUM_FLAGS, f"--user-data-dir={profile}"]}
        reply = self.call("", {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}})
        self.root += "/" + reply["sessionId"]

    def call(self, path, body=None, method=None):
        try:
            return json.loads(request(self.root + path, body, method))["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"chromedriver: {error.read().decode(errors='replace')[:500]}") from None

    def open(self, url):
        self.call("/url", {"url": "about:blank"})
        self.call("/url", {"url": url})

    def run(self, script):
        return self.call("/execute/sync", {"script": script, "args": []})

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("/screenshot")))

    def close(self):
        self.call("", method="DELETE")


def check_tab(browser, url, title, probe, prefix, seconds):
    """Opens a tab, waits for what it must draw, keeps its picture whatever comes. Gives whether it was drawn."""
    browser.open(url)
    path = f"{prefix}-{title}.png"
    began = time.monotonic()
    try:
        found = wait_for(f"the {title} tab", lambda: probe(browser), seconds)
        time.sleep(3)  # animations
        print(f"ok   {title}: {found} in {time.monotonic() - began:.1f} s, {path}")
        return True
    except (TimeoutError, RuntimeError) as error:
        print(f"FAIL {title}: {error}, {path}")
        return False
    finally:
        browser.picture(path)


def drawn_graph(browser):
    names = set(browser.run(GRAPH_BOXES))
    missing = [box for box in BOXES if box not in names]
    return "" if missing else f"{len(names)} boxes, among them {', '.join(BOXES)}"


def drawn_pictures(browser):
    sizes = browser.run(PICTURES)
    return f"{len(sizes)} pictures ({', '.join(sorted(set(sizes)))})" if len(sizes) >= 3 else ""


def drawn_words(*words):
    def probe(browser):
        text = browser.run(TEXT)
        return f"shows {', '.join(words)}" if all(word in text for word in words) else ""

    return probe


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir")
    parser.add_argument("prefix", help="what the names of the pictures begin with")
    parser.add_argument("--allow-missing", action="store_true", help="no Chromium is no failure")
    parser.add_argument("--seconds", type=float, default=90, help="patience with each tab (default: 90)")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        print(f"skipped: no {'chromium' if not chromium else 'chromedriver'}")
        sys.exit(0 if arguments.allow_missing else 1)
    if not os.path.isdir(arguments.logdir):
        sys.exit(f"FAIL {arguments.logdir}: no such folder")
    os.makedirs(os.path.dirname(os.path.abspath(arguments.prefix)), exist_ok=True)

    board_port, driver_port = free_port(), free_port()
    board = [sys.executable, "-m", "tensorboard.main", "--logdir", arguments.logdir, "--host", "127.0.0.1",
             "--port", str(board_port), "--reload_interval", "0"]
    tabs = (
        ("graphs", drawn_graph),
        ("images", drawn_pictures),
        ("scalars", drawn_words("objective", "test")),
        ("histograms", drawn_words("conv_1", "weights_1")),
    )
    with server(board, "TensorBoard"), server([driver, f"--port={driver_port}"], "chromedriver"), \
            tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        site = f"http://127.0.0.1:{board_port}"
        runs = wait_for("TensorBoard", lambda: json.loads(request(f"{site}/data/runs")), 120)
        print(f"TensorBoard serves the runs {runs}")
        wait_for("chromedriver", lambda: request(f"http://127.0.0.1:{driver_port}/status"), 60)
        browser = Browser(driver_port, chromium, profile)
        try:
            good = [check_tab(browser, f"{site}/#{title}", title, probe, arguments.prefix, arguments.seconds)
                    for title, probe in tabs]
        finally:
            browser.close()
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
