"""Baetyl's Python worker: loads the handlers of a function application and runs one invocation at a time.

Started by baetyl-runtime-python, which hands over one end of a socket pair as standard input and talks frames on
it: 4 bytes length (big endian) of what follows, 1 byte kind, body. A body with a header is 4 bytes length of the
header, the header as JSON, the payload.

    host to worker   S  setup     JSON: code, functions [{name, handler, codedir}], max_payload
                     I  invoke    header {function, metadata}, payload
    worker to host   R  ready     JSON: version, functions [{name, error}]
                     C  chunk     payload (a handler that yields sends one for each value)
                     O  output    header {metadata}, payload
                     F  failure   JSON: kind (function, return, not_found, cancelled), message

Prints go to the log, never to the frames. Tracebacks go to the log only. SIGINT cancels the running invocation.
Standard library only, Python 3.7 or newer.
"""

import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
import types

HERE = "<baetyl worker>"


class Cancelled(KeyboardInterrupt):
    """The caller is gone; raised inside the handler."""


class Channel:
    """Frames on the inherited socket, which is moved away from standard input so that handlers cannot meet it."""

    def __init__(self):
        self.socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self.reader = self.socket.makefile("rb", buffering=65536)

    def read(self):
        head = self.reader.read(5)
        if len(head) < 5:
            return None, None
        length, kind = struct.unpack(">Ic", head)
        body = self.reader.read(length - 1)
        if len(body) < length - 1:
            return None, None
        return kind, body

    def write(self, kind, *parts):
        length = 1 + sum(len(part) for part in parts)
        self.socket.sendall(b"".join((struct.pack(">Ic", length, kind),) + parts))

    def write_json(self, kind, value):
        self.write(kind, json.dumps(value).encode())

    def end_with_host(self):
        """Ends this process when the host goes away, also while a handler runs."""

        def wait():
            hangup = select.poll()
            hangup.register(self.socket.fileno(), 0)
            hangup.poll()
            os._exit(0)

        threading.Thread(target=wait, name="baetyl-hangup", daemon=True).start()


class Functions:
    """The handlers by name, or why they could not be loaded."""

    def __init__(self, code, specs):
        self.handlers = {}
        self.errors = {}
        self.directories = []
        for spec in specs:
            name, handler = spec["name"], spec["handler"]
            directory = os.path.abspath(os.path.join(code, spec.get("codedir") or ""))
            try:
                self.handlers[name] = self.load(handler, directory)
            except BaseException as error:  # also SystemExit of a module: the worker stays up and says why
                self.errors[name] = "cannot load handler %s: %s" % (handler, one_line(error))
                log("function %s: cannot load handler %s" % (name, handler), error)

    def load(self, handler, directory):
        """The callable `module.function`, with its directory first on the path."""
        module, dot, function = handler.rpartition(".")
        if not dot or not module or not function:
            raise ValueError("a handler is written module.function")
        self.enter(directory)
        found = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise TypeError("%s is not callable" % handler)
        return found

    def enter(self, directory):
        """Each directory may have its own index.py: modules of another one do not stand in for it."""
        if directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
        importlib.invalidate_caches()
        others = [other + os.sep for other in self.directories if other != directory]
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None) or ""
            if not any(origin.startswith(other) for other in others) or origin.startswith(directory + os.sep):
                continue
            own = os.path.join(directory, name.partition(".")[0])
            if os.path.exists(own + ".py") or os.path.isdir(own):
                del sys.modules[name]
        self.directories.append(directory)

    def report(self):
        names = list(self.handlers) + list(self.errors)
        return [{"name": name, "error": self.errors.get(name)} for name in names]


class Worker:
    """Runs invocations one after the other."""

    def __init__(self, channel, functions, max_payload):
        self.channel = channel
        self.functions = functions
        self.max_payload = max_payload
        self.cancelled = False
        # Only while the handler itself runs: an exception in the middle of a write would cut a frame.
        self.interruptible = False
        self.loop = None
        self.task = None
        signal.signal(signal.SIGINT, self.cancel)

    def cancel(self, *_):
        self.cancelled = True
        if self.task is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)
        elif self.interruptible:
            raise Cancelled("the caller is gone")

    def serve(self):
        while True:
            kind, body = self.channel.read()
            if kind is None:
                return
            if kind != b"I":
                raise ValueError("the host sent a frame of kind %r" % kind)
            size = struct.unpack_from(">I", body)[0]
            header = json.loads(body[4 : 4 + size])
            self.answer(header["function"], header["metadata"], body[4 + size :])

    def answer(self, name, metadata, payload):
        self.cancelled = False
        try:
            try:
                frame = self.invoke(name, metadata, payload)
            finally:
                self.interruptible = False
        except NotSendable as error:
            log("function %s (invocation %s)" % (name, metadata.get("invokeId")), error.__cause__ or error)
            frame = failure("return", str(error))
        except BaseException as error:  # whatever a handler raises, SystemExit too, is its failure and not ours
            self.interruptible = False
            if self.cancelled:
                frame = failure("cancelled", "the caller is gone")
            else:
                log("function %s (invocation %s) raised" % (name, metadata.get("invokeId")), error)
                frame = failure("function", one_line(error))
        self.channel.write(*frame)

    def invoke(self, name, metadata, payload):
        if name in self.functions.errors:
            return failure("function", self.functions.errors[name])
        handler = self.functions.handlers.get(name)
        if handler is None:
            return failure("not_found", "no such function")
        event, context = decode(payload), dict(metadata)
        self.interruptible = True
        value = handler(event, context)
        if hasattr(value, "__await__"):
            value = self.wait_for(value)
        if isinstance(value, types.GeneratorType):
            for item in value:
                self.chunk(item)
            value = None
        self.interruptible = False
        header = json.dumps({"metadata": changes(metadata, context)}).encode()
        return b"O", struct.pack(">I", len(header)), header, self.encode(value)

    def wait_for(self, awaitable):
        import asyncio

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)

        async def run():
            return await awaitable

        self.task = self.loop.create_task(run())
        try:
            return self.loop.run_until_complete(self.task)
        finally:
            self.task = None

    def chunk(self, value):
        self.interruptible = False
        self.channel.write(b"C", self.encode(value))
        self.interruptible = True
        if self.cancelled:
            raise Cancelled("the caller is gone")

    def encode(self, value):
        """None and "" are nothing, bytes stay as they are, all else is JSON."""
        if value is None or (isinstance(value, str) and not value):
            return b""
        if isinstance(value, (bytes, bytearray, memoryview)):
            payload = bytes(value)
        else:
            try:
                payload = json.dumps(value).encode()
            except Exception as error:
                raise NotSendable("the result is not JSON: %s" % one_line(error)) from error
        if len(payload) > self.max_payload:
            raise NotSendable("the result has %d bytes, at most %d can be sent" % (len(payload), self.max_payload))
        return payload


def failure(kind, message):
    return b"F", json.dumps({"kind": kind, "message": message}).encode()


class NotSendable(Exception):
    """What the handler returned cannot be sent."""


def decode(payload):
    """JSON if it is JSON, else the bytes."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload


def changes(metadata, context):
    """What the handler set in its context goes back to the caller (http.status, http.header.<name>, anything)."""
    return {str(key): str(value) for key, value in context.items() if metadata.get(key) != value}


def one_line(error):
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())[:1000]
    except Exception:
        text = "(it cannot be printed)"
    return "%s: %s" % (name, text) if text else name


def log(what, error):
    """One write, so that lines of several workers do not mix. Our own frames are left out."""
    text = [what + "\n"]
    if error is not None:
        stack = error.__traceback__
        while stack is not None and stack.tb_frame.f_code.co_filename == HERE:
            stack = stack.tb_next
        text += traceback.format_exception(type(error), error, stack)
    sys.stderr.write("".join(text))
    sys.stderr.flush()


def main():
    channel = Channel()
    channel.end_with_host()
    kind, body = channel.read()
    if kind is None:
        return
    setup = json.loads(body)
    # The working directory is where the instance's files are, not a place for modules.
    sys.path[:] = [place for place in sys.path if place]
    functions = Functions(setup["code"], setup["functions"])
    worker = Worker(channel, functions, setup["max_payload"])
    channel.write_json(b"R", {"version": sys.version.split()[0], "functions": functions.report()})
    worker.serve()


main()
