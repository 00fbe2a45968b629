"""Functions of the demo. A handler takes the event (JSON as objects, anything else as bytes) and a context."""


def handler(event, context):
    if isinstance(event, dict):
        return {"hello": event.get("name", "world"), "function": context["functionName"]}
    return {"hello": "world", "function": context["functionName"]}


def reverse(event, context):
    return event[::-1] if isinstance(event, bytes) else b""


def fail(event, context):
    raise ValueError("the sensor says %r" % (event,))
