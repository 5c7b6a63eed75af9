// See world.hpp.

#include "tests/simulation/world.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace ganglion::sim {

namespace {

constexpr int kInputBase = 20;  // a provider's prompt tokens name the attempt: kInputBase + its id

std::string chunk(const std::string& data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + data + "\r\n";
}

long number_after(std::string_view text, std::string_view name) {
  const auto at = text.find(name);
  long value = -1;
  if (at != std::string_view::npos) std::from_chars(text.data() + at + name.size(), text.data() + text.size(), value);
  return value;
}

std::string usage(const Received& of) {
  return R"("usage":{"prompt_tokens":)" + std::to_string(of.input) + R"(,"completion_tokens":)" +
         std::to_string(of.output) + R"(,"total_tokens":)" + std::to_string(of.input + of.output) + "}";
}

}  // namespace

// ---- clients

class ClientEnd final : public Endpoint, public std::enable_shared_from_this<ClientEnd> {
 public:
  ClientEnd(World& world, std::shared_ptr<Asked> asked, std::string text, Nanos leaves)
      : world_(world), asked_(std::move(asked)), text_(std::move(text)), leaves_(leaves) {}

  void on_open() override {
    if (!asked_->whole_upload) text_.resize(text_.size() - text_.size() / 4);
    send(text_);
    if (!asked_->whole_upload) leaves_ = std::min(leaves_, 200 * kMilli);
    if (leaves_ != kNever) {
      world_.machine_.at(leaves_, [self = shared_from_this()] { self->leave(); });
    }
    if (world_.machine_.random.percent(world_.temper.slow_reader)) {
      pause();
      world_.machine_.at(world_.machine_.random.between(1, 2'000) * kMilli,
                         [self = shared_from_this()] { self->resume(); });
    }
  }
  void on_refused() override { end(); }
  void on_data(std::string_view bytes) override {
    if (ended_) return;
    asked_->body += bytes;
    if (whole()) {
      end();
      if (open()) finish();
    }
  }
  void on_end(bool) override {
    if (!ended_ && whole()) return end();
    end();
  }

 private:
  void leave() {
    if (ended_) return;
    end();
    if (!open()) return;
    if (world_.machine_.random.percent(50))
      reset();
    else
      finish();
  }

  void end() {
    if (ended_) return;
    ended_ = true;
    if (--world_.unended_ == 0) world_.machine_.wake(&world_);
    asked_->ended_at = world_.machine_.now;
    world_.machine_.trace("client " + std::to_string(asked_->number) + " ends: " + std::to_string(asked_->status) +
                          (asked_->complete ? " whole, answer " + std::to_string(asked_->answer) : " cut") + why());
  }

  std::string why() const {
    const auto at = asked_->status >= 400 ? asked_->body.find("\"code\"") : std::string::npos;
    return at == std::string::npos ? "" : ", " + asked_->body.substr(at, asked_->body.find('}', at) - at);
  }

  // Reads the answer as far as it is there; true: it is whole.
  bool whole() {
    const std::string& raw = asked_->body;
    const auto head = raw.find("\r\n\r\n");
    if (head == std::string::npos) return false;
    asked_->status = static_cast<int>(number_after(raw, "HTTP/1.1 "));
    const std::string_view lines = std::string_view{raw}.substr(0, head + 2);
    std::string_view rest = std::string_view{raw}.substr(head + 4);
    std::string body;
    if (const long length = number_after(lines, "Content-Length: "); length >= 0) {
      if (rest.size() < static_cast<std::size_t>(length)) return false;
      if (rest.size() > static_cast<std::size_t>(length)) asked_->problem = "bytes after the answer";
      body = rest.substr(0, static_cast<std::size_t>(length));
      asked_->complete = true;
    } else {
      for (;;) {
        const auto line = rest.find("\r\n");
        if (line == std::string_view::npos) return false;
        std::size_t size = 0;
        const auto parsed = std::from_chars(rest.data(), rest.data() + line, size, 16);
        if (parsed.ec != std::errc{} || parsed.ptr != rest.data() + line) {
          asked_->problem = "a chunk without a size";
          return true;
        }
        if (rest.size() < line + 2 + size + 2) return false;
        body += rest.substr(line + 2, size);
        rest.remove_prefix(line + 2 + size + 2);
        if (size == 0) break;
      }
      asked_->complete = body.find("data: [DONE]\n\n") != std::string::npos;
    }
    asked_->answer = static_cast<int>(number_after(body, "answer-"));
    return true;
  }

  World& world_;
  std::shared_ptr<Asked> asked_;
  std::string text_;
  Nanos leaves_;
  bool ended_ = false;
};

// ---- providers

class ProviderEnd final : public Endpoint, public std::enable_shared_from_this<ProviderEnd> {
 public:
  ProviderEnd(World& world, int provider) : world_(world), provider_(provider) {}

  void on_data(std::string_view bytes) override {
    in_ += bytes;
    for (;;) {
      const auto head = in_.find("\r\n\r\n");
      if (head == std::string::npos) return;
      const long length = number_after(std::string_view{in_}.substr(0, head + 2), "Content-Length: ");
      if (length < 0 || in_.size() < head + 4 + static_cast<std::size_t>(length)) return;
      answer(in_.substr(head + 4, static_cast<std::size_t>(length)));
      in_.erase(0, head + 4 + static_cast<std::size_t>(length));
    }
  }
  void on_end(bool) override {
    left_ = true;
    if (open()) finish();
  }

 private:
  void answer(const std::string& body) {
    Random& random = world_.machine_.random;
    const Temper& temper = world_.temper;
    auto got = std::make_shared<Received>();
    got->id = static_cast<int>(world_.received_.size());
    got->life = world_.machine_.life();
    got->provider = provider_;
    const auto at = body.find("<<");
    got->prompt = body.substr(at + 2, body.find(">>") - at - 2);
    got->stream = body.find("\"stream\":true") != std::string::npos;
    const long most = number_after(body, "\"max_tokens\":");
    got->input = kInputBase + got->id;
    got->output = static_cast<int>(1 + random.below(static_cast<std::uint64_t>(std::max(most, 1L))));
    world_.received_.push_back(got);
    world_.machine_.trace("provider " + std::to_string(provider_) + " gets " + got->prompt + " as attempt " +
                          std::to_string(got->id));
    const Nanos think =
        random.percent(temper.slow) ? random.between(200, 5'000) * kMilli : random.between(1, 40) * kMilli;
    if (random.percent(temper.hang)) return;
    if (random.percent(temper.reset)) return reset(think);
    if (random.percent(temper.error)) {
      static constexpr int kStatuses[] = {400, 401, 429, 500, 503};
      const int status = random.of(kStatuses);
      const std::string text = R"({"error":{"message":"no","type":"server_error","code":null}})";
      return send("HTTP/1.1 " + std::to_string(status) + " No\r\nContent-Type: application/json\r\nContent-Length: " +
                      std::to_string(text.size()) + "\r\n\r\n" + text,
                  think);
    }
    got->answered = true;
    if (got->stream)
      stream(got, think);
    else
      plain(got, think);
  }

  bool cut() { return world_.machine_.random.percent(world_.temper.cut); }

  void plain(const std::shared_ptr<Received>& got, Nanos think) {
    Random& random = world_.machine_.random;
    const bool silent = random.percent(world_.temper.no_usage);
    const std::string text =
        R"({"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"answer-)" +
        std::to_string(got->id) + R"("},"finish_reason":"stop"}])" + (silent ? "" : "," + usage(*got)) + "}";
    if (silent) got->output = -1;
    std::string whole =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(text.size()) +
        "\r\n\r\n" + text;
    if (cut()) {
      send(whole.substr(0, random.below(whole.size())), think);
      return random.percent(50) ? finish(think) : reset(think);
    }
    send(std::move(whole), think);
    got->all_sent = true;
  }

  void stream(const std::shared_ptr<Received>& got, Nanos think) {
    Random& random = world_.machine_.random;
    const auto event = [](const std::string& delta, const std::string& finish) {
      return R"(data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":)" +
             delta + R"(,"finish_reason":)" + finish + "}]}\n\n";
    };
    const bool silent = random.percent(world_.temper.no_usage);
    const int cut_at = cut() ? static_cast<int>(random.below(static_cast<std::uint64_t>(got->output) + 2)) : -1;
    send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", think);
    Nanos at = think;
    for (int i = 0; i < got->output; ++i) {
      at += random.between(0, 30) * kMilli;
      if (i == cut_at) return random.percent(50) ? finish(at) : reset(at);
      send(chunk(event(R"({"content":")" + (i == 0 ? "answer-" + std::to_string(got->id) : " w") + "\"}", "null")), at);
    }
    std::string last = event("{}", "\"stop\"");
    if (!silent)
      last += R"(data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],)" +
              usage(*got) + "}\n\n";
    else
      got->output = -1;
    send(chunk(last), at);
    if (cut_at >= 0) return random.percent(50) ? finish(at) : reset(at);
    send(chunk("data: [DONE]\n\n") + "0\r\n\r\n", at);
    got->all_sent = true;
  }

  World& world_;
  const int provider_;
  std::string in_;
  bool left_ = false;
};

// ---- the world

World::World(Machine& machine, Net& net) : machine_(machine), net_(net) {}

void World::providers() {
  for (int i = 0; i < kProviders; ++i) {
    net_.serve(static_cast<std::uint16_t>(kProviderPort + i), [this, i](Dial& dial) -> std::shared_ptr<Endpoint> {
      if (machine_.random.percent(temper.refuse)) return nullptr;
      if (machine_.random.percent(temper.silent)) {
        dial = Dial::silent;
        return nullptr;
      }
      return std::make_shared<ProviderEnd>(*this, i);
    });
  }
}

std::shared_ptr<Asked> World::plan(int number) {
  Random& random = machine_.random;
  auto asked = std::make_shared<Asked>();
  asked->number = number;
  asked->life = machine_.life();
  asked->stream = random.percent(stream_percent);
  asked->max_tokens = static_cast<int>(random.between(1, 8));
  asked->prompt = "p" + std::to_string(number);
  asked->key = random.percent(limited_percent) ? "b" : "a";
  asked->whole_upload = !random.percent(temper.half_request);
  if (random.percent(shared_percent)) {
    asked->shared = true;
    const auto which = random.below(4);
    asked->prompt = "shared" + std::to_string(which);
    asked->stream = which % 2 == 0;
    asked->max_tokens = 5;
    asked->key = random.percent(75) ? "a" : "free";  // of another tenant
  } else if (random.percent(keyed_percent)) {
    // A key of an earlier request now and then: in this life or in one before.
    if (!keyed_.empty() && random.percent(60)) {
      auto it = keyed_.begin();
      std::advance(it, random.below(keyed_.size()));
      with_key(*asked, *it);
    } else {
      with_key(*asked, "k" + std::to_string(number));
    }
  }
  return asked;
}

// The same request for the same key.
void World::with_key(Asked& asked, const std::string& key) {
  keyed_.insert(key);
  asked.idempotency_key = key;
  asked.prompt = "keyed-" + key;
  asked.stream = key.size() % 2 == 0;
  asked.max_tokens = 4;
  asked.key = "a";
}

std::string World::text_of(const Asked& asked) const {
  std::string body = R"({"model":"m",)" + std::string{asked.stream ? "\"stream\":true," : ""} +
                     "\"max_tokens\":" + std::to_string(asked.max_tokens) +
                     R"(,"messages":[{"role":"user","content":"<<)" + asked.prompt + ">>" + std::string(400, 'x') +
                     R"("}]})";
  std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer sk-" + asked.key +
                     "\r\nContent-Type: application/json\r\ncf-aig-metadata: {\"n\":" + std::to_string(asked.number);
  for (int i = 0, left = padding; left > 0; ++i, left -= 250)
    head +=
        ",\"pad" + std::to_string(i) + "\":\"" + std::string(static_cast<std::size_t>(std::min(left, 250)), 'y') + "\"";
  head += "}\r\n";
  if (!asked.shared) head += "cf-aig-skip-cache: true\r\n";
  if (!asked.idempotency_key.empty()) head += "Idempotency-Key: " + asked.idempotency_key + "\r\n";
  return head + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

void World::send(std::uint16_t port, const std::shared_ptr<Asked>& asked) {
  asked->sent_at = machine_.now;
  const Nanos leaves = machine_.random.percent(temper.leave) ? machine_.random.between(0, 400) * kMilli : kNever;
  machine_.trace("client " + std::to_string(asked->number) + " asks " + asked->prompt + " by " + asked->key + " at " +
                 std::to_string(asked->gateway) + " for " + std::to_string(asked->max_tokens) +
                 (asked->stream ? " (stream)" : "") +
                 (asked->idempotency_key.empty() ? "" : " with key " + asked->idempotency_key));
  net_.connect(port, std::make_shared<ClientEnd>(*this, asked, text_of(*asked), leaves));
}

// When the index-th request of a life is sent.
Nanos World::moment(int index) {
  constexpr int kEach = 12;
  if (rounds == 0) return machine_.random.between(0, span);
  if (index < rounds * kEach) return index / kEach * 1'400 * kMilli + machine_.random.between(0, 120) * kMilli;
  return rounds * 1'400 * kMilli + machine_.random.between(0, 500) * kMilli;
}

void World::clients(const std::vector<std::uint16_t>& ports) {
  unended_ = 0;
  for (int i = 0; i < requests; ++i) {
    const auto asked = plan(next_++);
    asked_.push_back(asked);
    ++unended_;
    asked->gateway = machine_.random.below(ports.size());
    machine_.at(moment(i), [this, port = ports[asked->gateway], asked] { send(port, asked); });
  }
}

std::shared_ptr<const Asked> World::probe(std::uint16_t port, const std::string& key) {
  auto asked = std::make_shared<Asked>();
  asked->number = next_++;
  asked->life = machine_.life();
  asked->prompt = "probe" + std::to_string(asked->number);
  asked->key = key;
  asked->max_tokens = 1;
  asked_.push_back(asked);
  unended_ = 1;
  send(port, asked);
  return asked;
}

std::vector<std::shared_ptr<const Asked>> World::keys_again(const std::vector<std::uint16_t>& ports) {
  std::vector<std::shared_ptr<const Asked>> out;
  Nanos when = machine_.now;
  for (const std::string& key : keyed_) {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      auto asked = std::make_shared<Asked>();
      asked->number = next_++;
      asked->life = machine_.life();
      asked->gateway = (out.size() / ports.size() + i) % ports.size();  // each begins now and then
      with_key(*asked, key);
      asked_.push_back(asked);
      out.push_back(asked);
      machine_.at(when += kSecond, [this, port = ports[asked->gateway], asked] { send(port, asked); });
    }
  }
  unended_ = static_cast<int>(out.size());
  return out;
}

}  // namespace ganglion::sim
