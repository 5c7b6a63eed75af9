"""Chat templates written for the tests, in the manner of the published model
families, and the conversations they are rendered over. None is a copy of a
published template; each uses the constructs which that family is known for."""

TEMPLATES = {}

TEMPLATES["chatml"] = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

TEMPLATES["qwen_tools"] = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a careful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Functions\\n\\nThese functions may be called:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nAnswer a call with {\\"name\\": <name>, \\"arguments\\": <object>} inside <tool_call></tool_call>.<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a careful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TEMPLATES["qwen3_thinking"] = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set position = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = position %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

TEMPLATES["llama2"] = """\
{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set instructions = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set instructions = false %}{% endif %}{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and instructions != false %}{% set content = '<<SYS>>\\n' + instructions + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

TEMPLATES["llama3"] = """\
{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

TEMPLATES["llama32_dated"] = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today is " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Functions at hand:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("Only one call at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

TEMPLATES["mistral"] = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- set user_messages = rest | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in rest %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in rest %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val | tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id | length != 9 %}
                {{- raise_exception("Tool call ids should be nine characters long!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are known, with an optional system message first!") }}
    {%- endif %}
{%- endfor %}
"""

TEMPLATES["zephyr"] = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

TEMPLATES["gemma"] = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

TEMPLATES["phi"] = """\
{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES["deepseek_like"] = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, system_prompt='', turns=0) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt ~ ('\\n\\n' if ns.is_first else '') ~ message['content'] %}{% set ns.is_first = true %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.turns = ns.turns + 1 -%}{{ '<\uff5cUser\uff5c>' + message['content'] }}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<\uff5cAssistant\uff5c>' + content + eos_token }}{%- endif %}{%- endfor -%}{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\\n' }}{% endif %}"""

TEMPLATES["generation_blocks"] = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
        {{- message.content + '<|end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""

# The long one: as many constructs as published templates are known to use.
TEMPLATES["everything"] = """\
{#- A comment that must leave no trace. -#}
{%- macro render_type(spec, depth=0) -%}
    {%- if spec is mapping -%}
        {%- if spec.type == 'array' -%}
            {{- 'array<' ~ render_type(spec['items'], depth + 1) ~ '>' -}}
        {%- elif spec.type == 'object' -%}
            {%- for name, sub in spec.properties.items() -%}
                {{- name }}{{ '' if name in spec.get('required', []) else '?' }}:{{ render_type(sub, depth=depth + 1) -}}
                {%- if not loop.last %}, {% endif -%}
            {%- endfor -%}
        {%- else -%}
            {{- spec.type | default('any') -}}
        {%- endif -%}
    {%- else -%}
        {{- 'unknown@' ~ depth -}}
    {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(count=0, seen=[], total=0, text='') -%}
{%- set roles = messages | map(attribute='role') | list -%}
{{- 'roles=' ~ roles | join(',') ~ ';n=' ~ messages | length ~ ';first=' ~ (roles | first | upper) ~ ';last=' ~ (messages | last).role | title }}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set others = messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | unique | sort | list %}
;users={{ users | length }};others={{ others | tojson }}
{% if strftime_now is defined %}
date={{ strftime_now('%Y-%m-%d') }} {{ strftime_now("%A, %d %B %Y, %H:%M") }}
{% endif %}
{% set heading %}
  Block {{ messages | length * 2 + 1 }} of {{ (7 // 2) ~ '/' ~ (7 / 2) ~ '/' ~ (7 % 3) ~ '/' ~ 2 ** 5 }}
{% endset %}
[{{ heading | trim }}]
{%- if tools is defined and tools %}
{%+ for tool in tools if tool.function is defined %}
{{ loop.index }}/{{ loop.length }} {{ tool.function.name }}({{ render_type(tool.function.parameters) }}){{ ' # ' + tool.function.description if tool.function.description else '' }}
{% else %}
no functions
{% endfor %}
{%- endif %}
{% for message in messages %}
    {%- if message.role == 'developer' %}
        {%- continue %}
    {%- endif %}
    {%- if state.count >= 6 %}
        {{- '(cut)' }}
        {%- break %}
    {%- endif %}
    {%- set state.count = state.count + 1 %}
    {%- set who = {'user': 'U', 'assistant': 'A', 'system': 'S'}.get(message.role, '?' ~ message.role[0:2]) %}
    {%- if message.content is none or message.content is not defined %}
        {%- set body = '-' %}
    {%- elif message.content is string %}
        {%- set body = message.content.strip() %}
    {%- elif message.content is mapping %}
        {%- set body = message.content | tojson %}
    {%- else %}
        {%- set parts = message.content | selectattr('type', 'eq', 'text') | map(attribute='text') | list %}
        {%- set body = parts | join(' | ') %}
    {%- endif %}
    {%- set words = body.split() %}
    {%- set state.total = state.total + words | length %}
    {{- loop.index0 ~ ':' ~ who ~ ('>' if not loop.last else '.') }} {{ body.replace('\\n', ' / ') }}
    {%- if words %} [{{ words[0] | lower }}..{{ words[-1] | capitalize }}]{% endif %}
    {%- if words | length > 3 %} {{ words[1:3] | join('+') }} {{ words[::-1][0] }}{% endif %}
    {%- if body.startswith(('The', 'What')) or body.endswith('?') %} q{% endif %}
    {%- if 'the' in body and 'cat' not in body %} the{% endif %}
    {%- if message.tool_calls is defined and message.tool_calls is iterable %}
        {%- for call in message.tool_calls %} call={{ call.function.name }}:{{ call.function.arguments | tojson(separators=(',', ':')) if call.function.arguments is mapping else call.function.arguments }}{% endfor %}
    {%- endif %}
{{ '\\n' -}}
{% endfor %}
total={{ state.total }} avg={{ (state.total / messages | length) | round(2) }} int={{ (state.total / messages | length) | int }} abs={{ -3 | abs }} neg={{ -state.total }}
{{ 'yes' if state.total > 5 and state.total < 1000 else 'no' }} {{ not false }} {{ true and false or none }} {{ 1 < 2 }} {{ [1, 2.0, 'x', none, true] }} {{ {'k': [1, {'z': 'q'}]} }} {{ (1, 2) }}
{{ undefined_name | default('fallback') }}|{{ undefined_name }}|{{ '' | default('empty', true) }}|{{ messages[99].role | default('far') if messages | length > 99 else 'near' }}
{{ range(3) | list }} {{ range(2, 11, 4) | list }} {{ 'abc'[1] }} {{ 'abcdef'[1:-1] }} {{ 'a,b,c'.split(',') | last }} {{ ['b', 'a', 'C'] | sort | join }} {{ 'x' * 3 }} {{ [1, 2] + [3] }}
{{ 'one two'.title() }} {{ 'Mixed'.lower() ~ 'Mixed'.upper() }} {{ '  pad '.lstrip() ~ '|' ~ '  pad '.rstrip() ~ '|' }} {{ 'a-b'.find('-') }} {{ 'aXbX'.replace('X', '', 1) }} {{ '%s=%d' | format('n', 4) if false else 'skip' }}
{{ 3 is odd }} {{ 4 is even }} {{ 4 is divisibleby(2) }} {{ 3 is number }} {{ 'x' is string }} {{ none is none }} {{ [] is iterable }} {{ {} is mapping }} {{ [] is sequence }} {{ true is boolean }} {{ 3 is integer }} {{ 3.5 is float }} {{ 'a' is in ['a'] }} {{ 1 is eq 1 }}
{% for key, value in {'one': 1, 'two': [2, 'deux']}.items() %}{{ key }}={{ value }}{{ ';' if not loop.last }}{% endfor %}

{% for pair in {'b': 1, 'a': 2} | dictsort %}{{ pair[0] ~ pair[1] }} {% endfor %}{{ {'b': 1, 'a': 2} | items | list | length }} {{ [3, 1, 2] | max }}{{ [3, 1, 2] | min }}{{ [3, 1, 2] | sum }} {{ [[1, 2], [3]] | length }} {{ ['a', 'b'] | reverse | list }}
{% filter upper %}inside a filter{% endfilter %} {{ 'text' | replace('t', 'T') }} {{ 'a\\tb"c\\'d<e>&' | tojson }} {{ '<b>' | e }} {{ 'caf\u00e9 \u4f60\u597d \U0001f600' | tojson }} {{ 'caf\u00e9'| length }} {{ 'line one\\nline two' | indent(4) }}
{%- if add_generation_prompt %}
{{ '<assistant' -}} > {%- raw %} {{ not rendered }} {% endraw -%}
{% endif %}
{{- '' }}
"""

TEMPLATES["whitespace"] = """\
start
  {% if messages %}
    inside {{ messages | length }}
  {% endif %}
  {%- if messages %}
    minus left
  {%- endif %}
  {% if messages -%}
    minus right
  {% endif -%}
  {%+ if messages %}plus left{% endif %}
{# comment on its own line #}
  {# indented comment #}
after {# inline #} comment
{{ 'a' }}
{{ 'b' -}}
   joined
   {{- 'c' }}
{% for m in messages %}
  * {{ m.role }}
{% endfor %}
end
"""

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Look up the weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "The city's name, e.g. \"Z\u00fcrich\""},
                                         "days": {"type": "array", "items": {"type": "integer"}}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}}},
]

CONVERSATIONS = {
    "one_user": [{"role": "user", "content": "What is a cache?"}],
    "system_user": [{"role": "system", "content": "  Be brief.  "}, {"role": "user", "content": " Hello there \n"}],
    "multi": [{"role": "system", "content": "You know the cat."}, {"role": "user", "content": "The cat sat\non the mat."},
              {"role": "assistant", "content": " Indeed it did. "}, {"role": "user", "content": "Where did the dog sit?"}],
    "ends_with_assistant": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello!"},
                            {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Goodbye, the end."}],
    "unicode": [{"role": "user", "content": "Gr\u00fc\u00dfe \u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469\u200d\U0001f467 <b>&amp;\"quotes\"</b>\tTab"},
                {"role": "assistant", "content": "\U0001f600 \u00e9 e\u0301"}, {"role": "user", "content": "\u00bfQu\u00e9?"}],
    "not_alternating": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
    "assistant_first": [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Then I follow."}],
    "late_system": [{"role": "user", "content": "first"}, {"role": "assistant", "content": "second"}, {"role": "system", "content": "third"}, {"role": "user", "content": "fourth"}],
    "tool_use": [{"role": "system", "content": "Use functions."}, {"role": "user", "content": "Weather in Z\u00fcrich?"},
                 {"role": "assistant", "content": None, "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Z\u00fcrich", "days": [1, 2]}}}]},
                 {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"sky\": \"clear\", \"t\": 21.5}"},
                 {"role": "assistant", "content": "It is clear."}, {"role": "user", "content": "Thanks!"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image", "url": "x.png"}, {"type": "text", "text": "what is it?"}]}],
    "empty_content": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "empty": [],
    "long": [{"role": r, "content": "turn %d of the talk" % i} for i, r in enumerate(["user", "assistant"] * 4)] + [{"role": "developer", "content": "skip me"}, {"role": "user", "content": "last"}],
}

SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
FIXED_TIME = (2024, 7, 26, 14, 5, 9)


def cases():
    """(template, conversation, kwargs) triples: every template over every
    conversation, the generation prompt on and off, tools where they matter."""
    for t in TEMPLATES:
        for c, messages in CONVERSATIONS.items():
            for gen in (False, True):
                kw = {"add_generation_prompt": gen, "tools": None}
                yield t, c, kw
            if c in ("one_user", "multi", "tool_use") and t in ("qwen_tools", "llama32_dated", "mistral", "everything"):
                yield t, c, {"add_generation_prompt": True, "tools": TOOLS}
            if c in ("one_user", "multi") and t == "qwen3_thinking":
                yield t, c, {"add_generation_prompt": True, "tools": None, "enable_thinking": False}
                yield t, c, {"add_generation_prompt": True, "tools": None, "enable_thinking": True}


# One construct each, so that a failure names its cause. Rendered with
# messages = CONVERSATIONS["multi"], tools = TOOLS and add_generation_prompt.
SNIPPETS = [
    "{{ 1 + 2 * 3 - 4 }}", "{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}", "{{ 1 ~ 'a' ~ none ~ true ~ 1.5 ~ [1] }}",
    "{{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ not 1 }} {{ 1 if 0 else 2 }} {{ 'x' if false }}", "{{ 1 < 2 < 3 }}", "{{ none }} {{ true }} {{ False }} {{ None is none }}",
    "{{ [] or 'empty list' }} {{ {} or 'empty map' }} {{ '' or 'empty string' }} {{ 0 or 'zero' }} {{ 'a' and 'b' }}",
    "{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1].content }} {{ messages[1:3] | length }}", "{{ messages | map(attribute='role') | join(', ') }}",
    "{{ messages | selectattr('role', 'in', ['user', 'system']) | map(attribute='content') | list }}", "{{ messages | rejectattr('tool_calls') | list | length }}",
    "{{ messages | selectattr('tool_calls', 'defined') | list }}", "{{ tools | map(attribute='function.name') | list }}", "{{ tools[0] | tojson }}", "{{ tools[0] | tojson(indent=2) }}",
    "{{ tools[0].function.parameters.properties.keys() | list }}", "{{ tools[0].function.get('missing', 'absent') }} {{ tools[0].function.missing is defined }}",
    "{{ {'b': 1, 'a': [true, none, 1.0, 1e20, 'x']} | tojson(sort_keys=true) }}", "{{ {'a': 1, 'b': [1, 2]} | tojson(separators=(',', ':')) }}", "{{ '\u00e9\\n\"/\\\\\u007f\\u0001' | tojson }}",
    "{{ 'caf\u00e9' | tojson(ensure_ascii=true) }}", "{{ [1, 'a', None, True, 2.5, {'k': 'v'}] }}", "{{ 'it\\'s' }} {{ ['it\\'s', \"q\\\"q\"] }}", "{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789012345678 }} {{ 1/3 }}",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a--b'.split('--')[-1] }} {{ 'a,b,c'.rsplit(',', 1) }}", "{{ 'xxhixx'.strip('x') }} {{ 'xxhixx'.lstrip('x') }} {{ 'xxhixx'.rstrip('x') }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('b', 1) }}", "{{ 'abcabc'.count('b') }} {{ 'abc'.find('z') }} {{ 'abc'.index('c') }} {{ 'a b'.partition(' ') }}", "{{ 'hello world'.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ 'aB'.swapcase() }}",
    "{{ 'abc'.upper().lower() }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ '-'.join(['a', 'b']) }} {{ 'ab'.replace('b', 'c') }} {{ '7'.zfill(3) }}", "{{ 'abcdef'[2] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abc'[5:] }}|",
    "{{ 'h\u00e9llo \U0001f600!'[1] }} {{ 'h\u00e9llo \U0001f600!'[6] }} {{ '\U0001f600a' | length }} {{ '\u00dfstra\u00dfe'.upper() }} {{ '\u00c9T\u00c9' | lower }}", "{{ 'a' in 'cat' }} {{ 'k' in {'k': 1} }} {{ 2 in [1, 2] }} {{ 3 not in [1, 2] }}",
    "{{ x is defined }} {{ x is undefined }} {{ x | default('d') }} {{ x }}|{{ none | default('d') }}|{{ none | default('d', true) }}|{{ '' | d('e', boolean=true) }}", "{{ x.y }}", "{{ messages.nothing.more }}", "{{ raise_exception('stop: ' ~ messages | length) }}",
    "{{ 1 is number }} {{ 'a' is number }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is integer }} {{ true is boolean }} {{ 'a' is string }} {{ [] is string }}", "{{ {} is mapping }} {{ [] is mapping }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ [] is sequence }} {{ none is sequence }} {{ raise_exception is callable }}",
    "{{ 2 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 'a' is eq 'a' }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge(2) }} {{ 'ABC' is upper }} {{ 'abc' is lower }} {{ none is not none }} {{ true is true }} {{ 1 is sameas 1 }} {{ 1 is in [1] }}",
    "{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ messages | sort(attribute='role') | map(attribute='role') | list }}", "{{ [1, 2, 1] | unique | list }} {{ [1, 2, 3] | first }} {{ [1, 2, 3] | last }} {{ [] | first }}|{{ 'abc' | first }}",
    "{{ [1, 2, 3, 4] | select('even') | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ ['a', 'b'] | map('upper') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }}", "{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ range(5) | list }} {{ range(5, 1, -2) | list }}",
    "{{ 'a' | upper }} {{ 'A' | lower }} {{ 'ab cd' | title }} {{ 'ab' | capitalize }} {{ ' a ' | trim }} {{ 'xax' | trim('x') }} {{ 'ab' | length }} {{ 'ab' | count }} {{ 'ab' | reverse }} {{ 'a b c' | wordcount }}", "{{ 3.7 | int }} {{ '42' | int }} {{ 'x' | int(5) }} {{ '1.5' | float }} {{ 3.14159 | round(2) }} {{ 2.5 | round | int }} {{ 2.1 | round(method='ceil') }} {{ -5 | abs }} {{ 1 | string }}",
    "{{ 'a\\nb' | indent }} {{ 'a\\n\\nb' | indent(2, first=true) }} {{ 'a\\n\\nb' | indent(2, blank=true) }} {{ 'a\\nb' | indent('> ') }}", "{{ 'a' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ '%s-%d' | format('x', 3) }} {{ '%s!' % 'x' }} {{ '<a>&\"' | e }} {{ '<a>' | escape }} {{ '<a>' | safe }}",
    "{{ {'a': 1, 'b': 2}.items() | list }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'a': 1} | items | list }} {{ dict(a=1, b='x') }} {{ {'a': 1} | length }}", "{{ [1, 2] + [3] }} {{ [0] * 3 }} {{ 'ab' * 2 }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ [[1, 2], [3, 4]] | sum(start=[]) }} {{ [1.5, 2] | sum }}",
    "{% set a = 1 %}{% set b, c = 2, 3 %}{{ a + b + c }}", "{% set x %}block {{ 1 + 1 }}{% endset %}{{ x | upper }}", "{% set x | upper %}filtered{% endset %}{{ x }}", "{% set x = 0 %}{% for i in [1, 2] %}{% set x = i %}{% endfor %}{{ x }}", "{% set ns = namespace(x=0) %}{% for i in [1, 2, 3] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% if false %}a{% elif 1 > 2 %}b{% else %}c{% endif %}", "{% if x is defined and x %}a{% else %}b{% endif %}", "{% for i in [] %}a{% else %}none{% endfor %}", "{% for i in range(6) if i is even %}{{ loop.index }}:{{ i }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.first }}{{ loop.last }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem | default('-') }}{{ loop.nextitem | default('-') }} {% endfor %}", "{% for i in 'abc' %}{{ loop.cycle('x', 'y') }}{{ i }}{{ loop.changed(i) }} {% endfor %}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}-{{ b }};{% endfor %}", "{% for k in {'x': 1, 'y': 2} %}{{ k }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{% if j == 1 %}{% continue %}{% endif %};{% endfor %}{{ loop.index }}|{% endfor %}", "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "{% macro m(a, b='B', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m('A') }} {{ m('A', c=1) }} {{ m(b=2, a=1) }}", "{% macro outer(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call outer(1) %}body{% endcall %}", "{% macro f(n) %}{{ n if n < 2 else f(n - 1) ~ ',' ~ n }}{% endmacro %}{{ f(4) }}", "{% macro v() %}{{ varargs | join('+') }}{{ kwargs }}{% endmacro %}{{ v(1, 2, k=3) }}", "{% macro s() %}  spaced  {% endmacro %}{{ s() | trim }}{{ s() | length }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "{% filter upper | trim %} text {{ 1 }} {% endfilter %}", "{% raw %}{{ kept }}{% x %}{% endraw %}", "a {#- comment -#} b", "  {%- if true -%}  x  {%- endif -%}  y", "  {{- ' a ' -}}  |", "{% if true %}\nx\n{% endif %}\ny\n", "a\n    {% if true %}\nb\n    {% endif %}\nc", "{%+ if true +%}\nx{% endif %}", "a\n\n", "a\r\nb", "{{ 'tail' }}\n",
    "{% generation %}{{ 'inside' }}{% endgeneration %}", "{{ strftime_now('%d %B %Y %H:%M:%S %y %b %a %A %j %m %p %I %%') }}", "{{ messages[0] }}", "{{ messages[0] == {'role': 'system', 'content': 'You know the cat.'} }}", "{{ bos_token + 'x' + eos_token }}", "{{ add_generation_prompt }}", "{{ messages[10].role }}", "{{ messages | tojson }}",
    "{{ ('a' if true else 'b') ~ ('c' if false else 'd' if true else 'e') }}", "{{ (messages | last)['content'].split(' ')[0] | lower }}", "{{ -1 | abs }} {{ - 3 + 5 }} {{ not true or true }} {{ 1 + 1 ~ 1 }} {{ 2 * '3' | int }}", "{{ 1 if x is not defined else 2 }} {{ 'a' is not in ['b'] }} {{ not 'a' in ['b'] }}", "{{ [1, 2, 3][-1] }} {{ {'a': {'b': [10, 20]}}.a.b[1] }} {{ {'a b': 1}['a b'] }} {{ {1: 'x'}[1] }}",
    "{{ 'unterminated }}", "{% if true %}", "{{ 1 + }}", "{{ 'a' | nosuchfilter }}", "{{ 'a' is nosuchtest }}", "{% nosuchtag %}", "{{ 1 + 'a' }}", "{{ 1 // 0 }}", "{{ 'a'.nosuch() }}", "{{ x() }}", "{{ ''.__class__ }}", "{{ messages.append(1) }}", "{{ [].__class__.__mro__ }}", "{{ 'a' 'b' }}", "{{ 0x1f }} {{ 1_000 }} {{ 1.5e3 }} {{ 0b11 }} {{ 0o17 }}", "{{ '\\x41\\u00e9\\t|' }}", "{{ \"double 'single'\" }} {{ 'single \"double\"' }}",
    "{{ messages | groupby('role') | map(attribute='grouper') | list }}", "{{ 'a&b' | urlencode }} {{ [1, 2] | pprint }} {{ 'long text here' | truncate(8) }} {{ ['x'] | join(',') | center(5) }}|", "{{ 'a' ~ 1 + 2 }}", "{{ [1, 2] | tojson | length }} {{ none | tojson }} {{ 1.0 | tojson }} {{ 'x' | tojson }}", "{{ {'a': none}.a is none }} {{ {'items': 3}['items'] }} {{ messages[0].items() | list | length }}",
]
