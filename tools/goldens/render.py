"""Renders the chat templates and writes chat_templates.json. Needs jinja2; if
transformers is there, its own compiled template is used and compared."""

import datetime
import json
import os

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

import templates as T


class GenerationBlock(Extension):
    """`{% generation %}` marks assistant text for training; it renders as its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def fixed_strftime(fmt):
    return datetime.datetime(*T.FIXED_TIME).strftime(fmt)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(compile_template, text, kwargs):
    try:
        return {"output": compile_template(text).render(strftime_now=fixed_strftime, **kwargs)}
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e), "error_type": type(e).__name__}
    except Exception as e:  # Python's own errors: only that one occurs is part of the contract
        return {"error": str(e), "error_type": type(e).__name__}


def main(out_dir):
    env = environment()
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template
    except Exception as e:
        print("chat templates: transformers not used:", e)
        _compile_jinja_template = None
    differ = 0

    def both(text, kwargs):
        nonlocal differ
        r = render(env.from_string, text, kwargs)
        if _compile_jinja_template is not None:
            other = render(_compile_jinja_template, text, kwargs)
            if other != r:
                differ += 1
                print("differs from transformers:", text[:60], str(r)[:300], str(other)[:300])
                r = other
        return r

    rows, errors = [], 0
    for t, c, kw in T.cases():
        r = both(T.TEMPLATES[t], dict(kw, messages=T.CONVERSATIONS[c], **T.SPECIALS))
        errors += "error" in r
        row = {"template": t, "conversation": c, "add_generation_prompt": kw["add_generation_prompt"]}
        row["tools"] = kw["tools"] is not None
        if "enable_thinking" in kw:
            row["enable_thinking"] = kw["enable_thinking"]
        row.update(r)
        rows.append(row)
    snippets = []
    for text in T.SNIPPETS:
        kwargs = dict(messages=T.CONVERSATIONS["multi"], tools=T.TOOLS, add_generation_prompt=True, **T.SPECIALS)
        snippets.append(dict(template=text, **both(text, kwargs)))
    doc = {"note": "tools is the list `tools` where true and null where false; strftime_now is fixed to now_utc",
           "now_utc": datetime.datetime(*T.FIXED_TIME).isoformat(), "specials": T.SPECIALS, "templates": T.TEMPLATES,
           "conversations": T.CONVERSATIONS, "tools": T.TOOLS, "cases": rows,
           "snippets_context": {"conversation": "multi", "tools": True, "add_generation_prompt": True}, "snippets": snippets}
    with open(os.path.join(out_dir, "chat_templates.json"), "w") as f:
        f.write(json.dumps(doc, indent=0, ensure_ascii=True) + "\n")
    print("chat templates: %d cases, %d errors, %d differ" % (len(rows), errors, differ))


if __name__ == "__main__":
    import sys
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
