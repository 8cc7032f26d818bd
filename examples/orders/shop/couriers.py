"""Who carries things between shop and warehouse. Each may be cut off at any moment, and does again
what it does not know to be done."""

import sys
import time
import urllib.error
import urllib.request

import pika

ORDERS, CONFIRMATIONS = "orders", "confirmations"
#: After so many seconds without an answer an order is sent again.
AGAIN_AFTER = 5.0
PAUSE = 0.3


class Courier:
    """Works until something fails, then begins anew."""

    def run(self):
        while True:
            try:
                self.work()
            except Exception as error:  # The other end is away; whatever was begun is done again.
                print(f"{type(self).__name__}: {error!r}", file=sys.stderr, flush=True)
            time.sleep(PAUSE)

    def work(self):
        raise NotImplementedError


def channel_to(url):
    parameters = pika.URLParameters(url + "?heartbeat=5&blocked_connection_timeout=10")
    channel = pika.BlockingConnection(parameters).channel()
    for queue in (ORDERS, CONFIRMATIONS):
        channel.queue_declare(queue, durable=True)
    return channel


class Sender(Courier):
    """Sends orders that were not answered, with their number as the key of the message."""

    def __init__(self, book, url, copies):
        self.book, self.url, self.copies = book, url, copies

    def work(self):
        channel = channel_to(self.url)
        channel.confirm_delivery()
        try:
            while True:
                sent = []
                for number, body in self.book.unanswered(AGAIN_AFTER):
                    properties = pika.BasicProperties(
                        message_id=number, reply_to=CONFIRMATIONS, delivery_mode=2
                    )
                    for _ in range(self.copies):
                        channel.basic_publish("", ORDERS, body, properties, mandatory=True)
                    sent.append(number)
                self.book.sent(sent)
                channel.connection.sleep(PAUSE)
        finally:
            close(channel)


class Receiver(Courier):
    """Hears the answers; each is acknowledged once it is in the book."""

    def __init__(self, book, url):
        self.book, self.url = book, url

    def work(self):
        channel = channel_to(self.url)
        channel.basic_qos(prefetch_count=50)
        try:
            for method, properties, body in channel.consume(CONFIRMATIONS, inactivity_timeout=1):
                if method is not None:
                    status = int(properties.headers["onlyonce-status"])
                    self.book.hear(properties.correlation_id, status, body)
                    channel.basic_ack(method.delivery_tag)
        finally:
            close(channel)


def close(channel):
    try:
        channel.connection.close()
    except Exception:  # It is gone already.
        pass


class Canceller(Courier):
    """Calls orders off until the warehouse says that they never ship, or that it is too late."""

    def __init__(self, book, warehouses):
        self.book, self.warehouses = book, warehouses

    def work(self):
        for number in self.book.wanted("cancel", "wanted"):
            for warehouse in self.warehouses:
                answer = self._ask(f"{warehouse}/orders/{number}/cancel")
                if answer is not None:
                    self.book.mark(number, "cancel", answer)
                    break

    def _ask(self, url):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, b"", method="POST"), timeout=5):
                return "cancelled"
        except urllib.error.HTTPError as error:
            with error:
                return "too late" if error.code == 409 else None
        except OSError:
            return None
