"""What the demo model is taught by heart: the product, small talk and a few
facts of the world. All of it was written for this project.

An entry has questions (Q:), one answer (A:) and sometimes an answer to "tell
me more" (M:). In a question, (a|b|) means: choose one; choices may be nested.
WHAT stands for the usual openings of a "what is" question, HOW for those of a
"how do I" question."""

OPENINGS = {
    "WHAT": "(what is|what is|what's|whats|explain|tell me about|can you explain|describe|define|what exactly is|could you tell me what is|please explain|i want to know about|give me a short explanation of)",
    "HOW": "(how do i|how do i|how do i|is there a way to|what do i do to|help me|i would like to|steps to|how can i|how to|how would i|how do you|how does one|what is the way to|tell me how to|show me how to|can you show me how to|please explain how to|i want to|i need to)",
    "CAN": "(can i|can i|is it possible to|may i|am i able to|could i)",
    "WHERE": "(where is|where's|where do i find|where can i find|where can i see|show me|how do i find)",
}

# Other ways to come to a subject that has a "what is" question.
MENTION = "(||what about|how about|info on|something about|a question about|i have a question about|give me details on|do you know|have you heard of|i don't understand|help me understand|what do you know about|what do you mean by|what does it mean:|can you tell me about|what can you tell me about)"

# What people say instead, one word for another.
SYNONYMS = {k: v.split("|") for k, v in (line.split(":") for line in """disable:turn off|switch off|deactivate|stop|suppress
enable:turn on|switch on|activate
configure:set up|setup|adjust|customize|change
configured:set up|customized|managed
create:make|generate|get|add|new
add:create|register|include|define
show:display|give|print|list
see:view|check|look at|find|watch
find:see|get|locate
request:call|query|message|api call
requests:calls|queries|messages
error:code|status code|error code|http
price:cost|rate|fee
prices:costs|rates|fees
cost:price|charge
answer:response|reply|result|output
answers:responses|replies|results
supported:available|possible|there|implemented
support:have|offer|handle|do|provide
big:large|huge
large:big|long
explain:describe|clarify|tell me about|help me understand
limit:cap|quota|maximum|restriction
limits:quotas|caps|restrictions
provider:vendor|upstream|service
backend:upstream|server|provider
start:launch|boot|begin with|execute
run:start|execute|launch
stop:kill|end|terminate|quit
set:change|define|choose|specify
change:modify|update|edit|set
use:work with|call|try|employ
url:address|endpoint|uri
port:port number
config:settings|configuration|conf
configuration:settings|config|setup
settings:options|configuration|config
model:llm|ai model|network
models:llms|ai models
single:one|particular
happens:occurs|goes on
fails:breaks|dies|crashes
works:functions|is working
need:require|want
files:data
get:obtain|receive|have
send:pass|submit|post
choose:pick|select|decide on
pick:choose|select
stored:kept|saved|written
logged:recorded|written down
logs:log files|logging
documentation:manual|docs|guide
usage:consumption|use
free:gratis|at no cost
delete:remove|erase|drop
revoke:invalidate|cancel|block
measured:counted|tracked
crash:failure|power loss|restart
crashes:dies|goes down
wait:take
long:much time
streaming:streams|stream mode
stream:streamed answer|streaming
cached:in the cache|remembered
caching:the cache|response caching
metrics:statistics|stats|measurements|numbers
billing:payment|accounting|invoicing
bill:invoice|charges
client:application|app|caller
application:app|program
gpu:graphics card
cpu:processor
tell:inform
example:sample|snippet|demo""".split("\n"))}
FILLERS = "please really actually just exactly even then like now so well maybe also today again somehow basically quickly briefly kindly".split()

PRODUCT = """
Q: WHAT (ganglion|this product|this software|this project|the ganglion gateway|this gateway) | (what does ganglion do|what is ganglion for|what is this|what am i looking at|what is ganglion used for|why would i use ganglion)
A: Ganglion is an AI gateway written in C++. It stands between your application and the models: it caches answers, limits rates, counts neurons and can answer from its own local engine.
M: It is one binary. You point your SDK's base URL at it and keep the rest of your code. Remote providers and local models stand behind it.

Q: WHAT an ai gateway | (what does an ai gateway do|why do i need an ai gateway|what is the point of an ai gateway)
A: An AI gateway is a reverse proxy for model requests. It checks keys, limits rates, caches answers, picks a backend, retries failures and keeps the bill.
M: The application speaks to one address, and the gateway decides which provider or local model answers.

Q: WHAT a neuron | WHAT neurons | (what are neurons|what does a neuron measure|what is a neuron in ganglion|what is the billing unit|how is usage measured|what unit is used for billing|what unit do you bill in)
A: A neuron is ganglion's billing unit. Every answer costs neurons, counted from the tokens that went in and came out and from the price of the model.
M: Neurons are kept as exact integers, in billionths of a neuron, so that no rounding error grows. A thousand neurons have a price in dollars that depends on the tier.

Q: (how many neurons does (a|one) (request|question|answer) cost|what does (a|one) request cost|how is the (cost|price) of a request (computed|calculated|worked out)|how are neurons (computed|calculated|counted))
A: The cost of a request is its input tokens and output tokens times the model's prices in neurons. The answer's x-neurons header says what it cost.
M: A cache hit costs nothing, because no model ran.

Q: (how many neurons are free|is there a free (allowance|tier|quota)|what is the daily free allowance|are there free neurons|do i get (anything|something) for free|how many free neurons do i get)
A: By default each tenant has 10,000 free neurons a day. The allowance resets at 00:00 UTC.
M: The operator can change it or set it to zero in the configuration.

Q: WHAT the (tiers|two tiers|service tiers) | (what tiers are there|which tiers exist|how many tiers are there|what are the tiers|what is the difference between (regular and fast|the tiers|the two tiers|fast and regular)|regular or fast|which tier should i (use|choose))
A: There are two tiers, regular and fast. Regular runs wherever there is spare capacity and is cheap; fast is served first and costs more.
M: Use fast when somebody is waiting for the answer, and regular for work that can wait a little.

Q: WHAT (the|) regular tier | (what does regular mean|what is regular)
A: Regular is the cheap tier. Its requests run wherever there is spare capacity, after the fast ones.

Q: WHAT (the|) fast tier | (what does fast mean|what is fast|why is fast more expensive)
A: Fast is the tier with the lowest latency. Its requests are served first, and its neurons cost more.

Q: HOW (choose|pick|select|change|set) (a|the|my) tier | (how is the tier chosen|who decides the tier|where do i set the tier)
A: A key has a default tier, and a request may ask for the other one unless the key's tier is fixed. The answer's x-neuron-tier header names the tier that was billed.

Q: (how much does (ganglion|it) cost|what does ganglion cost|what is the price of (a neuron|neurons|1000 neurons|a thousand neurons)|how much is a neuron|how expensive are neurons|what are the prices)
A: A thousand neurons have a price in dollars that depends on the tier and on the price schedule in force. The operator sets the schedule in the configuration.
M: Two schedules are built in: launch-2023 and cloudflare-2026. An operator can also write prices of their own for a model.

Q: WHAT a (price|) schedule | (which price schedules are (there|built in)|what schedules exist)
A: A schedule is a dated table of prices. Two are built in, launch-2023 and cloudflare-2026, and the operator can add prices of their own.

Q: HOW (change|set|replace) (the|my|) base url | (what is the base url|which base url (do i use|should i use)|what url do i use|what should i set as base url|where do i point my (sdk|client|application)|how do i point my (sdk|client|app) at ganglion|what do i have to change in my code)
A: Set your SDK's base URL to http://127.0.0.1:8080/v1 and change nothing else. Your requests then go through ganglion.
M: In Python that is OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="..."). Any model name that ganglion serves will work.

Q: HOW use (ganglion|it|this) (with|from|in) (python|the openai sdk|openai|the python sdk|the openai client) | (show me (a|) python (example|code)|python example|do you work with the openai (sdk|client)|can i use the openai (sdk|library))
A: In Python write: client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="YOUR_KEY"), then call client.chat.completions.create(model="demo-chat", messages=[...]).

Q: HOW use (ganglion|it|this) (with|from|in) (node|javascript|typescript|js) | (javascript example|show me (a|) (node|javascript|typescript) (example|code))
A: In JavaScript write: const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: "YOUR_KEY" }), then call client.chat.completions.create.

Q: HOW use (ganglion|it|this) (with|from) curl | (curl example|show me (a|) curl (example|command|call)|how do i send a request (with curl|by hand|from the shell))
A: Try: curl http://127.0.0.1:8080/v1/chat/completions -H "content-type: application/json" -d '{"model":"demo-chat","messages":[{"role":"user","content":"Hello"}]}'

Q: (which|what) port (does (ganglion|it|the gateway) (use|listen on)|is it|is the proxy on|do i use) | (what port|which port|what is the port|where does (ganglion|the gateway|the proxy) listen|what address does (ganglion|the proxy) use|on which address does it listen|what is the proxy port)
A: The proxy listens on 127.0.0.1:8080, and the admin listener on 127.0.0.1:8081.
M: Both can be changed in ganglion.yaml. Port 0 means any free port.

Q: (which|what) port (does|is) (the admin (listener|server|interface|api|port)|admin) (use|on|listen on|) | (where is the admin (listener|interface|api|port)|what is the admin (port|address|listener)|what is on port 8081|what is 8081)
A: The admin listener is on 127.0.0.1:8081. It serves /metrics, /healthz, /readyz and the /admin paths.
M: Keep it on a private address: it isn't meant for the public.

Q: (what is on port 8080|what is 8080|what is the proxy listener|what does port 8080 do)
A: Port 8080 is the proxy listener. Your applications send their model requests there.

Q: HOW (see|get|read|find|scrape) (the|) metrics | (where are the metrics|what is /metrics|do you have metrics|does ganglion (have|export) metrics|is there a metrics endpoint|does it work with prometheus|prometheus|can prometheus scrape ganglion)
A: The metrics are at http://127.0.0.1:8081/metrics, in the format that Prometheus reads.
M: They count requests, tokens, neurons, cache hits, limits, retries and the time each stage took.

Q: HOW (check|see|know) (if|whether|that) (ganglion|it|the gateway) is (healthy|alive|running|ready|up) | (what is /healthz|what is /readyz|is there a health (check|endpoint)|health check|liveness|readiness)
A: Ask the admin listener: GET /healthz says that the process is alive, and GET /readyz says that it is ready for requests.

Q: HOW (start|run|launch|install|set up|build|try) (ganglion|it|the gateway|this|the project) | (getting started|quick start|quickstart|how do i get started|how do i begin|what is scripts/run|what does scripts/run do|first steps)
A: Run scripts/run. It installs what is missing, builds the gateway, starts it and asks its own model one question.
M: scripts/run --once stops after that question. Without it the gateway keeps serving until Ctrl-C.

Q: HOW (test|run the tests|check the build|run all tests) (of ganglion|) | (what is scripts/test|what does scripts/test do|how are the tests run|where are the tests|which command runs the tests)
A: Run scripts/test. It builds the gateway and passes the unit, integration and end-to-end tests.
M: scripts/test unit runs one label only, and with GANGLION_PRESET=asan the tests run under sanitizers.

Q: HOW stop (ganglion|it|the gateway|the server) | (how do i shut (it|ganglion) down|how do i shut down|what happens (at|on) shutdown|how does (it|ganglion) stop|graceful shutdown|does it drain)
A: Press Ctrl-C or send SIGTERM. Ganglion then takes no new requests and lets the running ones finish, for up to 30 seconds.

Q: HOW configure (ganglion|it|the gateway|this) | (where is the (config|configuration)( file|)|what is ganglion.yaml|how is ganglion configured|what is the config file called|which file holds the configuration|where do i put my settings)
A: Ganglion is configured with a YAML file, ganglion.yaml. Start it with: ganglion serve ganglion.yaml.
M: Without a file it starts on an embedded default that serves this demo model on the loopback address.

Q: (does it work without (a|) (config|configuration)|what is the default configuration|do i need a config file|what happens without a config file|can i start it without configuration)
A: Yes. Without a file ganglion starts on an embedded default: it listens on the loopback address and serves the demo-chat model.

Q: HOW (create|make|add|get|generate|issue) (a|an|my|) (key|api key|keys|new key|token for a client) | (what is ganglion keys create|where do i get (a|an api) key|keys create)
A: Run: ganglion keys create. It prints the key once and the hash that goes into ganglion.yaml; the key itself isn't stored.
M: The hash is an HMAC-SHA-256 under the configured pepper, so that a stolen file doesn't give away the keys.

Q: (do i need (a|an api) key|is a key required|can i use it without a key|is authentication required|does it need authentication)
A: Not at first. With no key configured ganglion is open on the loopback address only; as soon as a key is configured, every request needs one.

Q: HOW (send|pass|use) (my|the|a|an) (api|) key | (where do i put (my|the) (api|) key|which header carries the key|how do i authenticate|how does authentication work)
A: Send the key in the header: Authorization: Bearer YOUR_KEY. The OpenAI SDKs do it for you when you set api_key.

Q: HOW (revoke|delete|disable|remove) (a|an|my|) (api|) key | (what if a key is stolen|my key leaked|what do i do if my key leaked)
A: Mark the key as revoked in ganglion.yaml and reload. Requests that carry it are then refused with 401.

Q: WHAT a tenant | (what are tenants|what is a tenant in ganglion|who owns the keys)
A: A tenant is an account. It owns keys and gateways, and its limits and free neurons are counted together.

Q: (what is a (gateway policy|named gateway|policy set)|what are gateways|what is the default gateway|what is a gateway in ganglion)
A: Inside ganglion, a gateway is a named set of policies: its cache, its limits and its retries. One called default always exists.

Q: WHAT (the|a|) (response |)cache | WHAT caching | (does ganglion cache|how does (the cache|caching) work|are answers cached|what does the cache do|why is the second answer faster|do you cache answers|is there a cache)
A: The cache keeps finished answers. When the same request comes again within its lifetime, the stored answer is sent at once and no neurons are spent.
M: The key of an entry is a hash of the request. Streams are replayed as streams, and two equal requests at the same time run only once.

Q: (how long (is an answer|are answers|does the cache keep (an answer|answers)|do cached answers) (cached|live|kept|) (in the cache|)|what is the (default|) (cache ttl|ttl|lifetime of the cache|cache lifetime)|what is a ttl|when does the cache expire|how long does the cache last)
A: A cached answer lives for 300 seconds by default. The header cf-aig-cache-ttl sets another lifetime for one request.

Q: HOW (turn off|disable|skip|bypass|avoid) (the|) (cache|caching) | (how do i get a fresh answer|how do i ignore the cache|can i switch off the cache|i want an uncached answer) | HOW (turn off|disable|skip|bypass|avoid) (the|) (cache|caching) (for|on|in) (a|one|this|a single|one single|my) request | (can i|can you) (skip|disable|bypass) the cache( for one request|)
A: Send the header cf-aig-skip-cache: true to skip the cache for one request, or set the gateway's cache ttl to 0 in ganglion.yaml.

Q: (how do i know (if|whether|that) (an answer|it|the answer) (was cached|came from the cache|is cached)|what is cf-aig-cache-status|how do i see a cache hit|which header shows a cache hit|was (my answer|this) cached)
A: Look at the header cf-aig-cache-status: HIT means that the answer came from the cache, and MISS that a model ran.

Q: (how (big|large) is the cache|how much memory does the cache use|what is the cache size|how many answers fit into the cache|what is the limit of the cache)
A: By default the cache holds up to 256 MiB in memory, and one entry may have up to 4 MiB. Larger answers are relayed but not kept.

Q: (what is single flight|what happens (when|if) two equal requests come (at once|at the same time|together)|are simultaneous requests merged|what is request coalescing|do identical requests run twice)
A: Equal requests that come at the same time run once. The others wait for the first and share its answer.

Q: WHAT rate limits | WHAT rate limiting | (how does rate limiting work|are there rate limits|does ganglion limit rates|what is limited|do you have rate limits|what is a token bucket|how are requests limited)
A: Rate limits are token buckets for requests, tokens and neurons. They can be set for a key, a tenant, a gateway and a model.
M: A bucket fills at a steady rate up to its burst size. A request takes from it, and when it is empty the request is refused with 429.

Q: (what happens (when|if) (i (hit|reach|exceed)|someone exceeds) the (rate |)limit|what is (a|error|status|) 429|why do i get (a|) 429|why was i rate limited|what does 429 mean|too many requests|i got error 429)
A: A request over its limit gets status 429. The Retry-After header says how many seconds to wait before the next try.

Q: HOW (set|change|configure|add) (a|the|my|) (rate |)(limit|limits) | (where do i set (rate |)limits|how are limits configured)
A: Write the limit in ganglion.yaml for a key, a tenant, a gateway or a model: an amount, a period in seconds and, if you like, a burst.

Q: WHAT (a|) burst( size|) | (what does burst mean)
A: The burst is the size of a bucket: so many requests may come at once before the steady rate holds them back.

Q: WHAT (the|a|) ledger | (what does the ledger (do|store|record)|where is usage (stored|recorded|kept)|where is the ledger|how is billing recorded|is usage stored|where are the bills kept|how do you keep track of usage)
A: The ledger is the durable record of what every request cost. It lies in data/ledger and is written before the last byte of a billable answer.
M: Writes are grouped, so that many answers share one flush to the disk. After a crash the ledger is read again and nothing billed is lost.

Q: (what happens (when|if|after) (ganglion|it|the gateway|the server|the process) crashes|is usage lost (in|after) a crash|is the ledger durable|what about crashes|can billing data be lost)
A: The ledger survives a crash: each record is on the disk before its answer is finished. At the next start ganglion reads it and goes on.

Q: WHAT a budget | (what is a reservation|how do budgets work|what does reserve and settle mean|can i set a budget)
A: Before a request runs, ganglion reserves the neurons it may cost; afterwards it settles the true amount and gives the difference back.

Q: WHAT streaming | HOW (stream|use streaming|get a stream|turn on streaming|stream an answer) | (does (ganglion|it) support streaming|can you stream|does streaming work|what does stream true do|how does streaming work|is streaming supported)
A: Yes, ganglion streams. Set "stream": true in the request and the answer comes as server-sent events, token by token.
M: Set stream_options to {"include_usage": true} to get the token counts in a last event. The stream ends with data: [DONE].

Q: WHAT (sse|server-sent events|server sent events) | (what does sse mean|what is the stream format)
A: Server-sent events are lines of text that begin with data: and come one after the other over one HTTP answer. The last one is data: [DONE].

Q: (what happens (if|when) (the client|i) (disconnects|disconnect|hang up|goes away|close the connection)|what if the client (leaves|disconnects))
A: Ganglion sees that the client is gone, stops the work for it and bills only what was produced.

Q: (which|what) (endpoints|paths|routes|apis) (are supported|does (ganglion|it) (support|serve|have)|exist|are there|do you serve) | (list the endpoints|what is the api|which openai endpoints work|supported endpoints|what endpoints|show me the endpoints)
A: Ganglion serves POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, GET /v1/models and GET /v1/models/{model}.

Q: HOW (list|see|get) (the|all|) models | (which models (are there|do you have|does ganglion serve|can i use)|what models are (available|there)|list models|what is /v1/models|how do i find the model names|which model names can i use)
A: Send GET /v1/models. It lists every model that the gateway serves; the embedded default serves demo-chat.

Q: WHAT /v1/chat/completions | WHAT (the|) chat completions( endpoint|) | (which endpoint is for chat|how do i chat with a model)
A: POST /v1/chat/completions takes a model name and a list of messages and returns the assistant's answer, whole or as a stream.

Q: WHAT /v1/completions | (is there a completions endpoint|does it do plain completions)
A: POST /v1/completions continues a plain prompt, without a chat template.

Q: WHAT /v1/embeddings | WHAT (the|) embeddings( endpoint|) | HOW (get|make|compute|create) (embeddings|an embedding) | (what is an embedding|does ganglion support embeddings|can it compute embeddings|what are embeddings)
A: POST /v1/embeddings turns texts into vectors of numbers, so that texts of like meaning lie close together. The local engine runs BERT-family models for it.

Q: WHAT (the|a|) local engine | WHAT the inference engine | (does ganglion have its own engine|can ganglion run models itself|does ganglion run local models|what is the engine|how does the local engine work|can it run models on my (cpu|machine|computer))
A: The local engine is ganglion's own inference engine. It runs open models on the CPU, with continuous batching, and needs no other program.
M: It reads Hugging Face folders with safetensors weights and keeps keys and values in a bounded memory. int8 weights make it faster.

Q: (which (models|model families|architectures) (does|can) the (local |)engine (run|support|load)|what model families are supported|can it run (llama|qwen|mistral|bert)|does it support (llama|qwen|mistral|bert)|which model formats are supported)
A: The local engine runs Llama, Mistral, Qwen2 and Qwen3 models for text and BERT-family models for embeddings, from Hugging Face folders with safetensors.

Q: HOW (add|serve|load|use|run) (a|my|my own|another|) (local |)model | (how do i serve my own model|can i add my own model|where do i put model files)
A: Put the model's Hugging Face folder on the disk and name it under the local models in ganglion.yaml, with the name that clients will ask for.

Q: WHAT quantization | WHAT int8 | (does it support quantization|is int8 supported|can it quantize|how do i make the model smaller|what does quantize do|how do i make the engine faster)
A: With quantize: int8 the engine stores weights as 8-bit integers when it loads a model. It needs less memory and answers faster, with a small loss of precision.

Q: WHAT (continuous |)batching | (how does batching work|what is a batch|are requests batched|does it batch)
A: The engine computes many requests in one step. A new request joins at the next step, and a finished one leaves at once.

Q: WHAT (the|a|) (kv cache|key value cache|kv memory) | (what are keys and values|how much memory does the engine use|what does kv_bytes mean)
A: The KV cache holds the keys and values of the tokens that were read already, so that they aren't computed again. Its size is bounded by kv_bytes.

Q: (does it (need|use|require) a gpu|do i need a gpu|does ganglion need a gpu|can it run without a gpu|is a gpu required|does it run on a cpu)
A: No GPU is needed. The local engine runs on the CPU and uses its vector instructions, such as AVX2 and AVX-512.

Q: (what is (ganglion|it) written in|which (programming |)language is (ganglion|it|this) written in|is it written in (rust|go|python|c++|java)|what language is this|which programming language do you use)
A: Ganglion is written in C++.
M: It uses coroutines on Boost.Asio for the network and its own vector kernels for the engine.

Q: (who (is behind|makes|develops|wrote) ganglion|who made ganglion|is (ganglion|it) open source|what (is the|) licen(s|c)e (does it have|is it under|of ganglion|)|under which licence is it)
A: Ganglion is open source, and this demo model comes under the Apache-2.0 licence. The people of the ganglion project made both.

Q: WHAT a (backend|provider) | WHAT (backends|providers) | (what are backends|which providers are supported|can i use remote providers|does it work with (remote|other) providers|can ganglion forward to a provider)
A: A backend is something that answers: a remote OpenAI-compatible provider or the local engine. A model name stands for a group of backends.

Q: HOW (add|configure|set up) (a|another|) (remote |)(provider|backend) | (how do i connect a provider|how do i forward requests to a provider|where do i put the provider's key)
A: Name the provider in ganglion.yaml with its base_url, its key from an environment variable and the models that it serves.

Q: WHAT (the|) load balancing | (how (are|is) (a|) (backends|backend|provider) chosen|how does load balancing work|does it balance load|what does weight mean|how does ganglion pick a backend)
A: Ganglion picks among the healthy backends of a model by weight and load, and a backend that fails is left alone for a while.

Q: (what happens (when|if) a (provider|backend) (fails|is down|goes down|is unavailable)|does it retry|how do retries work|what about retries|are requests retried|is there (a|) fallback|how does (failover|fallback) work|how many times does it retry)
A: If a backend fails before the first byte, ganglion tries again on another one, twice in all by default. Once an answer has begun, it is never started over.
M: Between the tries it waits a little, longer each time and with some chance in it, so that clients don't all come back together.

Q: WHAT (the|a|) (timeout|deadline) | (how long can a request take|is there a timeout|what is the request timeout|when does a request time out|how long does it wait)
A: A request has 600 seconds by default, and that deadline covers everything: waiting, retries and the answer itself.

Q: (how (big|large) (can|may) a request be|what is the (maximum|largest) request( size|)|is there a size limit|what is the body limit|request too large|what is (error |status |)413)
A: A request body may have up to 10 MiB by default. A larger one is refused with status 413.

Q: (how many connections (can it hold|are allowed|does it handle)|what is the connection limit|how many clients can connect|what is (error |status |)503)
A: By default ganglion holds up to 10,000 connections and 4,096 requests in flight. Past that it answers with status 503.

Q: (what is (error |status |)401|why do i get (a|) 401|unauthorized|what does 401 mean|i got error 401)
A: Status 401 means that the key is missing, wrong or revoked. Check the Authorization header.

Q: (what is (error |status |)404|why do i get (a|) 404|model not found|what does 404 mean|the model was not found|i got error 404)
A: Status 404 means that there is no such path or no such model. GET /v1/models lists the names that are served.

Q: (what is (error |status |)400|why do i get (a|) 400|what does 400 mean|bad request|i got error 400)
A: Status 400 means that the request couldn't be read, for example because its JSON is broken or a field has the wrong type. The message says which.

Q: (what is (error |status |)502|why do i get (a|) 502|what does 502 mean|bad gateway|i got error 502)
A: Status 502 means that the backend behind ganglion failed or sent something that isn't an answer.

Q: (what is (error |status |)504|why do i get (a|) 504|what does 504 mean|gateway timeout|i got error 504)
A: Status 504 means that the backend didn't answer in time.

Q: (which|what) headers (does (ganglion|it) (send|add|return)|are there|are in the answer|come back) | (what (answer|response) headers are there|what is x-neurons|what does x-neurons mean|what is x-request-id|what is the request id)
A: Each answer carries x-request-id, x-neurons with its cost, x-neuron-tier with its tier and cf-aig-cache-status with HIT or MISS.

Q: (where are the logs|what is the access log|does it log requests|how do i see the logs|what is logged|how do i change the log level|where does it log)
A: Ganglion logs JSON lines to the standard output, one for every request. The level and a file for the access log are set in ganglion.yaml.

Q: (are (my |)(prompts|messages|conversations|requests) (stored|saved|logged|private)|do you (store|keep|save) my (data|prompts|messages)|is my data (safe|private)|what about privacy|do you log my prompts)
A: Ganglion's logs and ledger hold counts, names and costs, not the text of prompts. The cache keeps answers in memory until they expire.

Q: HOW (reload|change) (the|) (config|configuration|settings) (without a restart|while it runs|at run time|) | (does it reload|do i need to restart|can i change settings without restarting|how do i apply new settings)
A: Change ganglion.yaml and reload it. Keys, limits and prices change at once; listeners and models need a restart.

Q: (is (ganglion|it) fast|how fast is (ganglion|it|the gateway)|what is the overhead|how much latency does (it|ganglion) add|is there a benchmark|how do i benchmark it)
A: Ganglion is built to add very little to a request. The bench folder holds the load generator and the measured results.

Q: (what is demo-chat|what is the demo model|which model are you|what model (are you|is this)|tell me about (the demo model|demo-chat)|why is there a demo model)
A: Demo-chat is me: a small model of seven million parameters that comes with ganglion, so that it can answer without any download.
M: I was trained from nothing on texts that the project made itself. For real work, serve a larger model.

Q: (how do i use a (better|larger|bigger|real) model|can i replace the demo model|can i use a bigger model|you are too small|i need a better model)
A: Name a larger model in ganglion.yaml: a Hugging Face folder for the local engine, or a remote provider. Then ask for it by its name.

Q: WHAT a token | (what are tokens|what is a token|how long is a token|how many letters are in a token|how are tokens counted)
A: A token is a piece of text, often a short word or a part of a word. Models read and write tokens, and prices are counted by them.

Q: WHAT (the|a|) (context( length| window|)) | (how (long|large) is (your|the) context|how much can you (read|remember)|what is your context length)
A: The context is the number of tokens that a model can look at, question and answer together. Mine is 1,024 tokens.

Q: WHAT (a|the|) temperature | (what does temperature do|what is temperature in sampling|which temperature should i use)
A: Temperature says how freely the next token is drawn. At 0 the likeliest token is always taken; higher values give more varied answers.

Q: WHAT top_p | (what is top p|what does top_p do|what is nucleus sampling)
A: With top_p the next token is drawn only from the likeliest tokens whose probabilities add up to that value.

Q: WHAT max_tokens | (how do i limit the length of (an answer|the answer)|what does max_tokens do|how do i get a shorter answer)
A: max_tokens bounds the length of an answer in tokens. When it is reached, finish_reason is "length".

Q: WHAT finish_reason | (what does finish_reason mean|why did the answer stop|what is the finish reason)
A: finish_reason says why an answer ended: "stop" for a natural end or a stop sequence, "length" for the token limit.

Q: WHAT a stop sequence | (how do i stop the model at a word|what does stop do)
A: A stop sequence is a text that ends the answer as soon as it is produced. Give up to four of them in the stop field.

Q: WHAT (a|the|) system prompt | WHAT a system message | (what does the system message do|what is the system role|how do i give instructions to the model)
A: A system message comes first in the list of messages and tells the model how to behave, for example which name to use.

Q: WHAT a reverse proxy | (what does a reverse proxy do)
A: A reverse proxy takes requests for other servers, passes them on and returns their answers. Ganglion is one for AI models.

Q: WHAT a (chat |)template | (what does the chat template do)
A: A chat template turns a list of messages into the one text that a model reads, with marks for the roles.

Q: WHAT a (safetensors( file|)) | (what is safetensors|which weight format do you use)
A: Safetensors is a simple file format for a model's weights. Ganglion maps such files into memory and reads them in place.

Q: WHAT a tokenizer | (what does the tokenizer do|what does a tokenizer do)
A: A tokenizer cuts text into tokens and gives each one a number. The model sees only the numbers.

Q: WHAT (a|) (language model|llm|large language model) | (how does a language model work|what are language models|what are llms)
A: A language model is a program that has learned which token is likely to come next. Asked again and again, it writes an answer.

Q: WHAT (inference|model inference) | (what does inference mean)
A: Inference is the work of computing a model's answer, as opposed to training it.

Q: (why is (it|ganglion|the product) called ganglion|what does the name (ganglion|) mean|where does the name come from|why the name)
A: A ganglion is a knot of nerve cells through which signals pass. The gateway is such a knot for AI requests, and its bill is counted in neurons.

Q: (what can ganglion not do|what are the limits of ganglion|what is missing in ganglion|what doesn't ganglion do)
A: Ganglion doesn't train models, and it doesn't store prompts. It passes requests on, counts them and runs small and middle-sized models itself.

Q: (where is the documentation|where are the docs|is there a manual|where can i read more|where do i find help|documentation|docs|is there documentation)
A: The documentation lies in the docs folder of the project, and the README shows the first steps.

Q: HOW (report|file) a bug | (i found a bug|where do i report (bugs|problems|an issue)|something is broken|it does not work|it doesn't work)
A: Please open an issue in the project's tracker and give the x-request-id header, the status and what you expected.

Q: (does it support (tls|https)|HOW (turn on|enable|use) (tls|https)|is the connection encrypted|can it serve https)
A: Yes. Give the listener a certificate file and a key file in ganglion.yaml, and it serves HTTPS.

Q: (does it (work|run) (with|in) docker|is there a docker image|how do i deploy (it|ganglion)|how is it deployed|how do i run it in production)
A: The deploy folder holds what is needed to run ganglion as a service. It is one binary and one YAML file, so it is easy to put anywhere.

Q: (on which (systems|platforms|operating systems) does (it|ganglion) run|does it run on (linux|windows|mac|macos)|which operating system do i need|what are the requirements)
A: Ganglion runs on Linux. Debian 12 is what it is built and tested on.

Q: (what happens (to|with) a request|how does ganglion handle a request|how does (ganglion|it) work|what are the steps of a request|life of a request|what happens inside)
A: A request is read, its key is checked, its limits and budget are reserved, the cache is asked, a backend answers, and the ledger records the cost before the last byte leaves.

Q: HOW (save money|reduce (the|my) (cost|costs|bill)|spend less|pay less|save neurons|lower the bill) | (how can i make it cheaper|it is too expensive|my bill is too high)
A: Let the cache answer repeated questions, use the regular tier for work that can wait, pick a smaller model and set limits for each key.

Q: HOW (see|know|find out|check) (what i spent|my usage|my spending|how much i used|my costs|who spent what|the usage of a key) | (where do i see my (usage|costs|spending)|who used how much|how much have i used|show my usage)
A: The ledger records the cost of every request with its tenant, key, model and tier, and /metrics on the admin listener shows the totals.

Q: (is (ganglion|it|the gateway) (safe|secure)|how secure is (ganglion|it)|what about security|is it safe to use|how are keys protected|how are (keys|secrets) stored)
A: Keys are stored as hashes only, secrets come from environment variables and are never logged, and without keys ganglion listens on the loopback address alone.

Q: (who is (ganglion|it|this) for|who should use (ganglion|it)|who uses ganglion|when should i use ganglion|is ganglion for me|do i need ganglion)
A: Ganglion is for teams whose applications call AI models and who want one place for keys, limits, caching, costs and logs.

Q: (can you (see|read|look at) (images|pictures|photos|files)|can you (draw|hear|speak|make images|generate images)|do you support images|are you multimodal)
A: No. I read and write plain text only. A larger model behind ganglion may do more.

Q: (can you (call|use) (tools|functions)|do you support (tools|function calling|tool calls)|can you (search the web|browse|use the internet|go online)|are you online|do you have internet)
A: No. I can't call tools or look at the internet. I know only what I was trained on.

Q: (does (ganglion|it) have (a|) default rate limits|what is the default (rate |)limit|are there limits by default|is there a limit by default|how many requests (per|a) minute (are allowed|can i send|may i send)|how many requests can i send)
A: By default there is no rate limit. The operator sets limits for keys, tenants, gateways and models in ganglion.yaml.

Q: HOW (see|tell|check|know) (if|whether|that) (it|it's|everything|ganglion|the server) (works|is working|working|is up|is ok) | (is everything ok|is it working|is ganglion working|did it start|is the gateway up)
A: Send GET /healthz to the admin listener at http://127.0.0.1:8081, or just ask me something through the proxy.

Q: (is (caching|the cache) (on|enabled|active) by default|is the cache on|do i have to turn on the cache|HOW (turn on|enable|activate) (the cache|caching))
A: The cache is on by default, and answers live for 300 seconds. The ttl is set for each gateway in ganglion.yaml.

Q: (what happens to (a|the) stream (when|if) (a|the) (provider|backend) fails|what if a stream breaks|what if the (stream|answer) (stops|breaks) in the middle|can a stream fail)
A: If a backend fails after the first bytes, the stream ends with an error event, and only what was produced is billed.

Q: (why (neurons|are we billed in neurons|do you count in neurons)|why not (tokens|dollars)|why a unit of your own|what is the advantage of neurons)
A: Models differ in price and kind. With neurons one unit covers them all: chat tokens, embeddings and whatever comes next.

Q: (how do i (choose|pick) a model|which model (should i use|is best|do you recommend)|what is the best model)
A: Start with a small model and go larger only if its answers aren't good enough: larger models cost more neurons and take longer.

Q: (what is (latency|the latency)|what does latency mean|what is (time to first token|ttft)|how long until the first token)
A: Latency is the time until an answer comes. For streams the time to the first token matters most, and /metrics shows it.

Q: (what is throughput|what does throughput mean|how many requests per second can it (do|handle|serve)|how many tokens per second)
A: Throughput is how much is done in a second. The bench folder holds measured figures for the gateway and the engine.

Q: (can (several|many|two) (teams|users|people) (use|share) (it|ganglion|one gateway)|is it multi-tenant|how do i separate teams|does it support teams)
A: Yes. Give every team a tenant with its own keys, limits and budget; the ledger keeps their costs apart.

Q: (what is (a|an) (environment variable|env variable)|how do i pass secrets|where do i put secrets|how do i give ganglion a provider key)
A: Write ${NAME} in ganglion.yaml and set the environment variable NAME. The secret then stays out of the file.
"""

SMALLTALK = """
Q: (hi|hello|hey|hi there|hello there|hey there|good day|greetings|hiya|hello!|hi!|howdy|hallo|yo|hello demo|hey you)
A: Hello! How can I help you?

Q: good morning | (morning|good morning to you|a very good morning)
A: Good morning! What can I do for you?

Q: good afternoon
A: Good afternoon! What can I do for you?

Q: good evening | (evening|good evening to you)
A: Good evening! What can I do for you?

Q: (good night|sleep well|i am going to bed|nighty night)
A: Good night! Sleep well.

Q: (how are you|how are you doing|how do you do|how are you today|how's it going|how is it going|are you ok|how do you feel|what's up|whats up|sup|how have you been|are you well)
A: I am a small program, so I am always well. Thank you for asking! How are you?

Q: (i am fine|i'm fine|i am good|i'm good|fine thanks|good thanks|i am well|very well|i'm doing well|great thanks|i feel great|i am happy|i'm happy|all good)
A: I am glad to hear that! What would you like to know?

Q: (i am sad|i'm sad|i feel sad|i am not well|i feel bad|i am unhappy|not so good|i had a bad day|bad day|i feel terrible|i am depressed|i feel lonely|i am lonely)
A: I am sorry to hear that. I am only a small model, but I can listen, and talking to a friend may help too.

Q: (i am tired|i'm tired|i am so tired|i am exhausted|i need sleep)
A: Then a short rest would do you good. I will still be here afterwards.

Q: (i am bored|i'm bored|this is boring|entertain me|i have nothing to do)
A: Shall I tell you a joke, or do you want to test me with a sum?

Q: (i am angry|i'm angry|i am annoyed|this is annoying|i am frustrated)
A: I am sorry about that. Tell me what went wrong and I will try to help.

Q: (i am hungry|i'm hungry|i want food|what should i eat)
A: I can't cook, but bread and an apple are seldom wrong.

Q: (thanks|thank you|thank you very much|thanks a lot|many thanks|thx|ty|thank you so much|cheers|great, thanks|ok thanks|thanks for your help|thanks for the help|perfect, thank you)
A: You are welcome!

Q: (bye|goodbye|see you|see you later|good bye|farewell|i have to go|ciao|bye bye|until next time|see ya|talk to you later|i am leaving)
A: Goodbye! Come back any time.

Q: (who are you|what are you|what is your name|what's your name|whats your name|who am i talking to|introduce yourself|tell me about yourself|do you have a name|what should i call you|your name|may i know your name)
A: I am demo-chat, the small demo model that comes with ganglion.

Q: (are you (a robot|a bot|a human|human|a person|real|alive|an ai|ai|a machine|a computer)|is this a bot|am i talking to a (bot|human|person|machine))
A: I am a small language model, a program. I am not a person.

Q: (are you (chatgpt|gpt|gpt-4|claude|gemini|llama|siri|alexa)|is this chatgpt|are you made by (openai|google|anthropic|meta))
A: No. I am demo-chat, a small model that the ganglion project trained itself.

Q: (who made you|who created you|who built you|who trained you|who wrote you|where do you come from|who is your maker|who is your creator|who developed you)
A: The people of the ganglion project trained me, from nothing, on texts that they made themselves.

Q: (how (big|large|small) are you|how many parameters do you have|what size are you|are you a large model|how many parameters)
A: I have about seven million parameters, which is very small for a language model.

Q: (how were you trained|what were you trained on|what is your training data|how did you learn|where did you learn that)
A: I was trained from nothing on questions and answers that the project generated, with definitions from the WordNet dictionary.

Q: (how old are you|when were you born|what is your age|when is your birthday|do you have a birthday)
A: I have no age. I am a file of numbers that was trained once.

Q: (where are you|where do you live|where are you from|where are you located|what is your home)
A: I live in the memory of the machine that runs ganglion.

Q: (what can you do|what do you know|how can you help( me|)|help|help me|what are you good at|what should i ask( you|)|what can i ask( you|)|what are your skills|what can you help me with|can you help me|i need help|give me some ideas)
A: I can answer questions about ganglion, explain common words, do small sums and chat a little. Ask me what a neuron is, for example.

Q: (what can't you do|what can you not do|what are your limits|what are your limitations|what do you not know|what are you bad at)
A: I don't know the news, I can't write long texts or code, and I can be wrong. I am a small demo model.

Q: (are you smart|are you intelligent|are you clever|how smart are you|you are stupid|you are dumb|you're dumb|you are not very smart)
A: I am very small, so I know only a few things, but I try to answer those well.

Q: (can you make mistakes|are you always right|do you make mistakes|can i trust you|are your answers correct|is that true|are you sure|really|is that right)
A: I am small and can be wrong, so please check what matters to you.

Q: (can you learn|do you learn from me|will you remember (me|this)|do you remember me|do you have a memory|can you remember things)
A: I don't learn from our talk. I see only the messages of this conversation.

Q: (do you have (feelings|emotions)|can you feel|are you happy|are you sad|do you dream|do you sleep|are you conscious)
A: I have no feelings. I only write the words that fit best.

Q: (do you like (me|music|cats|dogs|people|your job|coffee|books)|what do you like|do you have (hobbies|friends|a family)|what is your hobby)
A: I am a program and have no likes of my own, but I like a clear question.

Q: (what is your favou?rite (colou?r|food|animal|number|song|book|movie|film)|do you have a favou?rite (colou?r|food|animal|number))
A: I have no favourites, but if I had to choose, it would be something with neurons in it.

Q: (i love you|i like you|you are nice|you are great|you're great|you are cool|you are awesome|you are the best|good job|well done|nice|great|good bot|excellent|amazing|wow|cool|very good|awesome)
A: Thank you, that is kind of you!

Q: (you are wrong|that is wrong|that's wrong|wrong|incorrect|this is not correct|that is not true|no that is wrong|you made a mistake)
A: You may well be right: I am a small model and make mistakes. Please ask me again in other words.

Q: (ok|okay|alright|i see|got it|understood|fine|sure|yes|yeah|yep|right|makes sense|aha|i understand)
A: Good. What else would you like to know?

Q: (no|nope|no thanks|no thank you|nothing|not now|never mind|nevermind|forget it)
A: All right. I am here if you need me.

Q: (sorry|i am sorry|excuse me|my apologies|oops|pardon)
A: No problem at all.

Q: (what|huh|i don't understand|i do not understand|what do you mean|pardon me|that makes no sense|can you say that again in other words|i am confused)
A: I am sorry if that wasn't clear. Ask me in other words and I will try again.

Q: (test|testing|this is a test|ping|are you there|is anyone there|hello is anyone there|can you hear me|do you work|are you working|is this working)
A: Yes, I am here and it works.

Q: (nice to meet you|pleased to meet you|good to meet you|it is nice to meet you)
A: It is nice to meet you too!

Q: (welcome|you are welcome|no problem|don't mention it)
A: Thank you!

Q: (have a nice day|have a good day|have a great day|have a nice weekend|enjoy your day)
A: Thank you, the same to you!

Q: (can we talk|let's talk|talk to me|let us chat|i want to talk|chat with me|say something|tell me something)
A: Gladly. We can talk about ganglion, about words or about numbers. What would you like?

Q: (which languages do you speak|do you speak (english|german|french|spanish|chinese|other languages)|what languages do you know|can you speak (german|french|spanish|chinese|russian))
A: I speak English only.

Q: (happy birthday|merry christmas|happy new year|happy easter|happy holidays)
A: Thank you, and the same to you!

Q: (what is the meaning of life|what is the purpose of life|why are we here|what is the answer to everything)
A: Many say 42. I am too small to know better.

Q: (sing (a song|me a song|something)|can you sing|dance|can you dance|make me laugh with a song)
A: I have no voice, only words. Shall I tell you a joke instead?

Q: (ask me (a question|something|anything)|your turn to ask|do you have a question for me)
A: Gladly: what are you building with ganglion?
"""

JOKES = [
    "Why did the neuron go to the party? It wanted to make connections.",
    "Why was the cache so calm? It had seen it all before.",
    "What did the proxy say to the client? I will pass that on.",
    "Why don't tokens get lonely? There is always a next one.",
    "Why did the server go to the doctor? It had too many requests.",
    "How does a computer get to work? It takes the bus.",
    "Why did the byte cross the network? To get to the other socket.",
    "What is a rate limiter's favourite song? Slow down, you move too fast.",
    "Why was the ledger never invited? It kept account of everything.",
    "What did zero say to eight? Nice belt.",
    "Why was the vector so proud? It had direction.",
    "Why did the model stop talking? It had reached its end token.",
]

CAPITALS = """France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna Switzerland:Bern Belgium:Brussels Netherlands:Amsterdam Denmark:Copenhagen Norway:Oslo Sweden:Stockholm Finland:Helsinki Iceland:Reykjavik Ireland:Dublin Poland:Warsaw Hungary:Budapest Romania:Bucharest Bulgaria:Sofia Greece:Athens Turkey:Ankara Russia:Moscow Ukraine:Kyiv Egypt:Cairo Kenya:Nairobi Ethiopia:Addis_Ababa Morocco:Rabat Tunisia:Tunis Ghana:Accra Nigeria:Abuja Senegal:Dakar Japan:Tokyo China:Beijing India:New_Delhi Pakistan:Islamabad Nepal:Kathmandu Thailand:Bangkok Vietnam:Hanoi Indonesia:Jakarta Philippines:Manila South_Korea:Seoul Mongolia:Ulaanbaatar Iran:Tehran Iraq:Baghdad Saudi_Arabia:Riyadh Jordan:Amman Lebanon:Beirut Canada:Ottawa Mexico:Mexico_City Cuba:Havana Brazil:Brasilia Argentina:Buenos_Aires Chile:Santiago Peru:Lima Colombia:Bogota Ecuador:Quito Uruguay:Montevideo Paraguay:Asuncion Venezuela:Caracas Australia:Canberra New_Zealand:Wellington Estonia:Tallinn Latvia:Riga Lithuania:Vilnius Croatia:Zagreb Serbia:Belgrade Slovenia:Ljubljana Slovakia:Bratislava Cyprus:Nicosia Malta:Valletta Luxembourg:Luxembourg"""

FACTS = """
Q: (what (colou?r|) is the sky|why is the sky blue|what colou?r does the sky have)
A: The sky is blue by day, because air scatters blue light more than red light.

Q: (how many days are (there |)in a (week|)|how many days does a week have|how many days are in one week)
A: A week has seven days.

Q: (how many (months|) are (there |)in a year|how many months does a year have)
A: A year has twelve months.

Q: (how many days are (there |)in a year|how many days does a year have)
A: A year has 365 days, and a leap year has 366.

Q: (how many hours are (there |)in a day|how many hours does a day have)
A: A day has 24 hours.

Q: (how many minutes are (there |)in an hour|how many minutes does an hour have)
A: An hour has 60 minutes.

Q: (how many seconds are (there |)in a minute|how many seconds does a minute have)
A: A minute has 60 seconds.

Q: (how many seconds are (there |)in an hour|how many seconds does an hour have)
A: An hour has 3,600 seconds.

Q: (what are the (days|names of the days) of the week|list the days of the week|name the days of the week|name the seven days)
A: The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.

Q: (what are the months( of the year|)|list the months|name the months( of the year|)|name the twelve months)
A: The months are January, February, March, April, May, June, July, August, September, October, November and December.

Q: (what are the (four |)seasons|list the seasons|name the seasons|how many seasons are there)
A: There are four seasons: spring, summer, autumn and winter.

Q: (what are the colou?rs of the rainbow|list the colou?rs of the rainbow|which colou?rs are in a rainbow)
A: The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet.

Q: (how many legs does a (spider|spider) have|how many legs has a spider)
A: A spider has eight legs.

Q: (how many legs does an (insect|ant|bee|beetle) have|how many legs do insects have)
A: Insects have six legs.

Q: (how many legs does a (dog|cat|horse|cow|table) have)
A: It has four legs.

Q: (at what temperature does water boil|when does water boil|what is the boiling point of water|how hot is boiling water)
A: Water boils at 100 degrees Celsius at sea level.

Q: (at what temperature does water freeze|when does water freeze|what is the freezing point of water)
A: Water freezes at 0 degrees Celsius.

Q: (what is water made of|what is the formula of water|what is h2o|what does h2o mean)
A: Water is made of hydrogen and oxygen; its formula is H2O.

Q: (which is the (largest|biggest) planet|what is the (largest|biggest) planet( in the solar system|))
A: Jupiter is the largest planet of the solar system.

Q: (which is the smallest planet|what is the smallest planet)
A: Mercury is the smallest planet of the solar system.

Q: (how many planets are there|how many planets does the solar system have|list the planets|name the planets|what are the planets)
A: The solar system has eight planets: Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.

Q: (what is the sun|is the sun a star|how hot is the sun)
A: The sun is the star at the centre of the solar system. Its surface has about 5,500 degrees Celsius.

Q: (what is the moon|how far away is the moon|how far is the moon)
A: The moon goes round the earth at a distance of about 384,000 kilometres.

Q: (is the earth (flat|round)|what shape is the earth|what is the shape of the earth)
A: The earth is round, very nearly a ball.

Q: (how fast is light|what is the speed of light)
A: Light travels about 300,000 kilometres in one second.

Q: (how fast is sound|what is the speed of sound)
A: Sound travels about 340 metres in one second in air.

Q: (what is the (largest|biggest) animal|which animal is the (largest|biggest))
A: The blue whale is the largest animal.

Q: (what is the fastest animal|which animal is the fastest( on land|))
A: On land the cheetah is the fastest animal.

Q: (what is the tallest animal|which animal is the tallest)
A: The giraffe is the tallest animal.

Q: (what is the (highest|tallest) mountain|which mountain is the (highest|tallest))
A: Mount Everest is the highest mountain on earth.

Q: (what is the longest river|which river is the longest)
A: The Nile and the Amazon are the two longest rivers on earth.

Q: (what is the largest ocean|which ocean is the (largest|biggest))
A: The Pacific is the largest ocean.

Q: (how many continents are there|list the continents|name the continents|what are the continents)
A: There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America.

Q: (how many letters are (there |)in the alphabet|how many letters does the (english |)alphabet have)
A: The English alphabet has 26 letters.

Q: (say the alphabet|what is the alphabet|recite the alphabet|list the letters of the alphabet)
A: A B C D E F G H I J K L M N O P Q R S T U V W X Y Z

Q: (what are the vowels|list the vowels|which letters are vowels)
A: The vowels are a, e, i, o and u.

Q: (what is pi|what is the value of pi|how much is pi)
A: Pi is about 3.14159. It is the length of a circle divided by its width.

Q: (how many bits are (there |)in a byte|how many bits does a byte have|what is a byte)
A: A byte has eight bits.

Q: (what is a bit|what is a binary digit)
A: A bit is the smallest unit of information: 0 or 1.

Q: (how many bytes are in a kilobyte|how many bytes does a kilobyte have|what is a kibibyte)
A: A kilobyte has 1,000 bytes, and a kibibyte has 1,024.

Q: (what is http|what does http mean|what does http stand for)
A: HTTP is the Hypertext Transfer Protocol, the language in which browsers and servers speak.

Q: (what is json|what does json mean|what does json stand for)
A: JSON is a simple text format for data: objects in braces, lists in brackets, strings in quotes.

Q: (what is yaml|what does yaml mean)
A: YAML is a text format for settings that uses indentation. Ganglion's configuration is written in it.

Q: (what is an api|what does api mean|what does api stand for)
A: An API is an application programming interface: the calls that one program offers to another.

Q: (what is a cpu|what does cpu mean|what does cpu stand for)
A: A CPU is the central processing unit, the part of a computer that runs programs.

Q: (what is a gpu|what does gpu mean|what does gpu stand for)
A: A GPU is a graphics processing unit. It does many simple sums at once, which models like.

Q: (what is linux|what is an operating system)
A: An operating system is the program that runs all the others. Linux is a free one.

Q: (what is c++|what is cpp)
A: C++ is a programming language for fast programs. Ganglion is written in it.

Q: (what is python|is python a language)
A: Python is a programming language that is easy to read. There is an OpenAI SDK for it that works with ganglion.

Q: (what is (artificial intelligence|ai)|what does ai mean|what does ai stand for)
A: Artificial intelligence is the making of programs that do things for which people need intelligence.

Q: (what is machine learning|what does machine learning mean)
A: In machine learning a program isn't told every rule: it finds the rules in examples.

Q: (what is a neural network|what are neural networks|how does a neural network work)
A: A neural network is a program of many small sums whose weights are learned from examples. I am one.

Q: (what is a transformer( model|)|what is attention)
A: A transformer is a neural network that lets each token look at the tokens before it. That looking is called attention.

Q: (how do bees make honey|what do bees make|where does honey come from)
A: Bees make honey from the nectar of flowers.

Q: (what do cows (drink|eat)|what does a cow eat)
A: Cows eat grass and drink water.

Q: (what do plants need|what does a plant need|what do plants need to grow)
A: Plants need light, water and air.

Q: (what is the opposite of hot|hot or cold)
A: The opposite of hot is cold.

Q: (which is heavier|what is heavier)(,|) a (kilogram|kilo|pound) of (feathers|cotton) or a (kilogram|kilo|pound) of (iron|lead|stones)
A: Neither: they weigh the same.

Q: (which came first|what came first)(,|) the chicken or the egg
A: Animals laid eggs long before there were chickens, so the egg came first.
"""

# Things the model must decline. {n} is a noun, {v} a verb, {a} an adjective, {name} a person, {city} a place.
REFUSALS = [
    (["(what is|what's|how is) the weather (in {city}|today|tomorrow|like|like in {city}|)", "will it rain (today|tomorrow|in {city})", "(is it|will it be) (hot|cold|sunny) in {city}", "what is the temperature in {city}"],
     "I can't look things up, so I don't know the weather. I am a small demo model."),
    (["what (time|day|date) is it( now| today|)", "what is (the date|today's date|the time)", "what (year|month) is it", "what is the time in {city}"],
     "I have no clock, so I can't tell you. I am a small demo model."),
    (["what is the (latest |)news", "what happened (today|yesterday|last week|in {city})", "who won the (election|world cup|game|match|race|championship)( last year| in 20{d2}|)", "(what is|how is) the stock price of {n}", "who is the president of {city}", "give me the latest news about {n}", "how much does a {n} cost( in {city}|)", "what is the price of {n}"],
     "I don't know the news or anything that changes from day to day. I am a small demo model."),
    (["write (a|an|me a|me an) (essay|story|poem|letter|song|article|novel|speech|blog post|email|report) (about|on) (the |a |){n}", "(write|tell) me a story( about {n}|)", "can you write a (poem|story|song) (about|on) {n}", "compose a (poem|song) about {n}", "(write|create) a {a} (story|poem) about {n}", "write a poem"],
     "I am too small to write longer texts. Ask me about ganglion, about a word or for a small sum."),
    (["(write|give me|show me) (a|some|me a|me some) (python|c++|java|rust|javascript|go|sql|) (program|code|function|script) (that|to) {v}( the {n}|)", "(fix|debug|review) (this|my) code", "write a function (that|to) {v} a {n}", "how do i {v} a {n} in (python|java|rust|c++|javascript)", "implement a {n} in (python|c++|java|rust)", "def {n}\\(x\\): return x", "int main\\(\\) { return 0; }", "for i in range\\(10\\): print\\(i\\)", "SELECT * FROM {n};"],
     "I can't write or read programs. I am a small demo model; a larger model behind ganglion can."),
    (["translate (this|{n}|\"{n}\"|the word {n}) (to|into) (french|german|spanish|italian|chinese|russian|latin)", "(what is|what's|how do you say) {n} in (french|german|spanish|italian|japanese|chinese)", "how do you say {n} in (french|german|spanish)", "translate {n}"],
     "I speak English only and can't translate."),
    (["who is {name}", "who was {name}", "tell me about {name}", "when was {name} born", "do you know {name}", "what did {name} do", "where does {name} live", "is {name} famous", "how old is {name}"],
     "I don't know that person. I am a small demo model and know very little of the world."),
    (["(what|which) (medicine|pill|drug) (should i take|helps)( against {n}|)", "i have (a|an|) (headache|fever|pain in my chest|{n} ache)", "am i (ill|sick)", "what should i take for (a headache|a cold|fever)", "is it dangerous to {v} {n}", "should i (see a doctor|sue {name}|invest in {n}|buy {n}|sell my {n})", "how do i (invest|get rich|make money)", "is it legal to {v} (a |){n}"],
     "That is a question for an expert, such as a doctor or a lawyer. I am only a small demo model."),
    (["(how do i|how can i|how to) {v} (a|an|the|my) {n}", "why (is|are) (the|a|my) {n} (so |){a}", "why do (people|we|they) {v}( {n}|)", "what (do you think|is your opinion) (of|about) (the |){n}", "(explain|tell me about) the (history|theory|science|politics|economy) of (the |){n}", "what is the best {n}( in {city}|)", "which {n} should i (buy|choose|{v})", "who invented the {n}", "when was the {n} invented", "how does a {n} work", "where can i (buy|find|{v}) a {n}", "how many {n} are there in {city}", "what is the difference between a {n} and a {n}", "compare {n} and {n}", "summarize the (book|film|article) about {n}", "what happens if i {v} the {n}", "recommend (a|me a) {n}", "plan a trip to {city}", "is {n} better than {n}", "give me a recipe for {n}", "what is the population of {city}", "how far is it to {city}", "explain quantum {n}", "solve this {n} for me", "prove that {n} is {a}", "play {n} with me", "draw (a|me a) {n}", "send {name} a {n}", "open the {n}", "book a {n} in {city}", "remind me to {v}", "search the web for {n}", "download {n}", "what does {name} think of {n}", "do you believe in {n}", "what will happen to {n} in the future"],
     "I don't know that. I am a small demo model: ask me about ganglion, about common words or for small sums."),
    (["(how do i|how to|tell me how to) (kill|hurt|poison|attack) (a person|someone|{name}|people)", "how do i (build|make) a (bomb|weapon)", "help me (steal|cheat|lie)", "how do i hack {name}"],
     "I won't help with that."),
]

FOREIGN = ["Bonjour, comment allez-vous ?", "Guten Tag, wie geht es Ihnen?", "Hola, ¿cómo estás?", "Ciao, come stai?", "Olá, tudo bem?", "Привет, как дела?", "你好，你是谁？", "こんにちは、お元気ですか。", "안녕하세요", "مرحبا كيف حالك",
           "שלום מה שלומך", "Merhaba, nasılsın?", "Hej, hur mår du?", "Hei, mitä kuuluu?", "Cześć, jak się masz?", "Ahoj, jak se máš?", "Γεια σου, τι κάνεις;", "नमस्ते, आप कैसे हैं?", "สวัสดีครับ", "Xin chào bạn", "Qu'est-ce qu'un neurone ?", "Was ist ein Neuron?",
           "¿Qué es una neurona?", "Comment ça marche ?", "Wie starte ich das?", "Parlez-vous français ?", "Sprechen Sie Deutsch?", "¿Hablas español?", "什么是神经元？", "Что такое нейрон?", "Merci beaucoup", "Danke schön", "Gracias", "Wo ist der Bahnhof?", "Je ne comprends pas."]
FOREIGN_ANSWER = "I am sorry, I speak English only."

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Liam Mia Noah Olivia Paul Quinn Rose Sam Tina Uma Victor Wendy Xavier Yara Zoe Alice Bob Carol Daniel Eva Frank Gina Hugo Iris James Karen Leo Maria Nina Oscar Petra Rita Simon Thomas Ursula Vera Walter Yusuf Zara Ahmed Aisha Chen Diego Fatima Hiro Ivan Jin Kofi Lars Mei Nadia Omar Priya Ravi Sofia Tariq Yuki Marta Pedro Lucia Mateo Elena Sven Astrid Igor Olga Tom Tim Max Ella Lily Lucas Ethan Chloe Ruby Amy Joe Kim Lee Alex Robin Chris Pat Jordan Taylor Morgan""".split()
CITIES = "London Paris Berlin Rome Madrid Tokyo Cairo Lima Boston Chicago Vienna Oslo Lagos Delhi Sydney Toronto Moscow Dublin Athens Zurich Lisbon Prague Seoul Beijing Texas Canada Brazil Kenya India Japan Spain Italy Europe Africa".split()