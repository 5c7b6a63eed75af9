// See redis_server.hpp.

#include "tests/simulation/redis_server.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace ganglion::sim {
namespace {

using Type = RedisAnswer::Type;

// The server's own clock; the gateways' may jump.
constexpr std::int64_t kStartUs = 1'767'225'600LL * 1'000'000;

constexpr std::array<std::string_view, 10> kTroubles{
    "is killed",  "is killed and will be empty", "hangs", "loads", "is a replica", "is full", "is slow", "cuts answers",
    "is flushed", "forgets its scripts"};

// The number behind a '*' or '$' and where its line ends; nullopt: it is not all there.
std::optional<std::pair<std::size_t, std::size_t>> header(std::string_view bytes, std::size_t at) {
  const auto end = bytes.find("\r\n", at);
  if (end == std::string_view::npos) return std::nullopt;
  std::size_t number = 0;
  std::from_chars(bytes.data() + at + 1, bytes.data() + end, number);
  return std::pair{number, end + 2};
}

RedisAnswer list(std::initializer_list<RedisAnswer> items) {
  return {.type = Type::list, .items = items};
}

// As if what a gateway returns of a rate limit (ratelimit/redis_leases.cpp: the seventh of eight words for each kind)
// was given back twice.
RedisWords returned_twice(RedisWords words) {
  constexpr std::size_t kFirstKind = 6;  // behind EVAL, script, 1, key, time, divisor
  if (words.size() < kFirstKind || !words[3].contains("limit:{")) return words;
  for (std::size_t at = kFirstKind + 6; at < words.size(); at += 8) {
    const long long back = std::strtoll(words[at].c_str(), nullptr, 10);
    if (back > 0) words[at] = std::to_string(2 * back);
  }
  return words;
}

}  // namespace

bool take_commands(std::string& bytes, std::vector<RedisWords>& out) {
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    if (bytes[taken] != '*') return false;
    const auto count = header(bytes, taken);
    if (!count) break;
    std::size_t at = count->second;
    RedisWords words;
    while (words.size() < count->first && at < bytes.size()) {
      if (bytes[at] != '$') return false;
      const auto size = header(bytes, at);
      if (!size || bytes.size() < size->second + size->first + 2) break;
      words.push_back(bytes.substr(size->second, size->first));
      at = size->second + size->first + 2;
    }
    if (words.size() < count->first || words.empty()) break;
    out.push_back(std::move(words));
    taken = at;
  }
  bytes.erase(0, taken);
  return true;
}

class RedisConnection final : public Endpoint {
 public:
  explicit RedisConnection(RedisServer& server) : server_(server) {}
  void on_data(std::string_view bytes) override {
    in_ += bytes;
    go_on();
  }
  void on_end(bool) override {
    channels.clear();
    if (open()) finish();
  }
  void go_on() {
    if (server_.state_ == RedisServer::State::hung) return;  // it is read when it comes to itself
    std::vector<RedisWords> commands;
    if (!take_commands(in_, commands)) server_.broken_ = "what came is no RESP";
    for (const RedisWords& words : commands)
      if (open()) server_.execute(*this, words);
  }
  std::set<std::string> channels;

 private:
  RedisServer& server_;
  std::string in_;
};

RedisServer::RedisServer(Machine& machine, Net& net)
    : machine_(machine), data_([&machine] { return kStartUs + machine.now / kMicro; }), scripts_(data_) {
  net.serve(kPort, [this](Dial& dial) -> std::shared_ptr<Endpoint> {
    if (state_ == State::dead) return nullptr;
    static_cast<void>(dial);
    auto connection = std::make_shared<RedisConnection>(*this);
    connections_.push_back(connection);
    return connection;
  });
}

void RedisServer::life(bool sound) {
  Random& random = machine_.random;
  connections_.clear();
  state_ = State::up;
  slow_ = cuts_ = false;
  troubles_ = 0;
  if (sound || random.percent(40)) return;
  for (auto left = random.between(1, 3); left > 0; --left) {
    const auto trouble = static_cast<Trouble>(random.below(static_cast<std::uint64_t>(Trouble::kCount)));
    const Nanos from = random.percent(20) ? 0 : random.between(0, 4'000) * kMilli;
    const Nanos length = random.percent(50) ? random.between(1, 300) * kMilli : random.between(300, 3'000) * kMilli;
    ++troubles_;
    ever_troubled_ = true;
    machine_.at(from, [this, trouble] { begin(trouble); });
    machine_.at(from + length, [this, trouble] { end(trouble); });
  }
}

void RedisServer::drop_all() {
  for (const auto& weak : connections_)
    if (const auto connection = weak.lock()) connection->reset();
  connections_.clear();
}

void RedisServer::begin(Trouble trouble) {
  machine_.trace("Redis " + std::string{kTroubles[static_cast<std::size_t>(trouble)]});
  switch (trouble) {
    case Trouble::emptied:
      lost_data_ = true;
      data_.clear();
      [[fallthrough]];
    case Trouble::killed:
      state_ = State::dead;
      scripts_.forget();
      return drop_all();
    case Trouble::hung:
      state_ = State::hung;
      return;
    case Trouble::loading:
      state_ = State::loading;
      return;
    case Trouble::read_only:
      state_ = State::read_only;
      return;
    case Trouble::no_memory:
      state_ = State::no_memory;
      return;
    case Trouble::slow:
      slow_ = true;
      return;
    case Trouble::cuts:
      cuts_ = true;
      return;
    case Trouble::flushed:
      lost_data_ = true;
      return data_.clear();
    case Trouble::unlearned:
      return scripts_.forget();
    case Trouble::kCount:
      return;
  }
}

void RedisServer::end(Trouble trouble) {
  machine_.trace("Redis is well again");
  if (trouble == Trouble::slow) slow_ = false;
  if (trouble == Trouble::cuts) cuts_ = false;
  if (trouble >= Trouble::slow) return;
  state_ = State::up;
  for (const auto& weak : std::vector{connections_})
    if (const auto connection = weak.lock()) connection->go_on();
}

const char* RedisServer::refusal(const std::string& name) const {
  const bool writes = name != "GET" && name != "PING" && name != "CLUSTER" && name != "SUBSCRIBE";
  if (state_ == State::loading) return "LOADING Redis is loading the dataset in memory";
  if (state_ == State::read_only && writes) return "READONLY You can't write against a read only replica.";
  if (state_ == State::no_memory && writes && name != "DEL")
    return "OOM command not allowed when used memory > 'maxmemory'.";
  return nullptr;
}

std::int64_t RedisServer::publish(const std::string& channel, const std::string& message) {
  std::int64_t heard = 0;
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (!connection || !connection->open() || !connection->channels.contains(channel)) continue;
    ++heard;
    connection->send(
        list({RedisAnswer::bulk("message"), RedisAnswer::bulk(channel), RedisAnswer::bulk(message)}).wire());
  }
  return heard;
}

RedisAnswer RedisServer::subscribe(RedisConnection& from, const RedisWords& words) {
  if (words[0] == "SUBSCRIBE")
    from.channels.insert(words[1]);
  else
    from.channels.erase(words[1]);
  return list({RedisAnswer::bulk(words[0] == "SUBSCRIBE" ? "subscribe" : "unsubscribe"), RedisAnswer::bulk(words[1]),
               RedisAnswer::of(static_cast<std::int64_t>(from.channels.size()))});
}

RedisAnswer RedisServer::answer(RedisConnection& from, const RedisWords& words) {
  const std::string& name = words[0];
  if (const char* const refused = refusal(name)) return RedisAnswer::error(refused);
  if (name == "CLUSTER") return RedisAnswer::error("ERR This instance has cluster support disabled");
  if ((name == "SUBSCRIBE" || name == "UNSUBSCRIBE") && words.size() == 2) return subscribe(from, words);
  if (name == "PUBLISH" && words.size() == 3) return RedisAnswer::of(publish(words[1], words[2]));
  if (name == "PING" && !from.channels.empty()) return list({RedisAnswer::bulk("pong"), RedisAnswer::bulk("")});
  if (record != nullptr) {
    record->push_back(words);
    record->back().insert(record->back().begin(), std::to_string(kStartUs + machine_.now / kMicro));
  }
  if (name == "EVAL" || name == "EVALSHA") return scripts_.run(double_return ? returned_twice(words) : words);
  return data_.run(words);
}

void RedisServer::tell_of(const RedisWords& words, const RedisAnswer& out) {
  const auto readable = [](const std::string& text) {
    std::string shown = text.substr(0, 40);
    std::ranges::replace_if(shown, [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '.');
    return " " + shown;
  };
  std::string line = "Redis:";
  for (const std::string& word : words) line += readable(word);
  line += " ->" + readable(out.type == Type::integer ? std::to_string(out.integer) : out.text);
  for (const RedisAnswer& item : out.items)
    line += readable(item.type == Type::integer ? std::to_string(item.integer) : item.text);
  machine_.trace(line);
}

void RedisServer::execute(RedisConnection& from, const RedisWords& words) {
  Random& random = machine_.random;
  const RedisAnswer out = answer(from, words);
  if (out.type == Type::unknown) broken_ = out.text;
  if (!scripts_.unknown().empty()) broken_ = scripts_.unknown();
  if (out.type == Type::error && out.text.starts_with("ERR") && words[0] != "CLUSTER")
    broken_ = "Redis answers " + words[0] + " with " + out.text;
  if (tell && words[0] != "PING") tell_of(words, out);
  std::string wire = out.wire();
  const Nanos takes = (slow_ ? random.between(1, 150) * kMilli : 0) + random.between(5, 60) * kMicro;
  if (cuts_ && random.percent(15)) {
    wire.resize(random.below(wire.size()));
    from.send(std::move(wire), takes);
    return from.reset(takes);
  }
  from.send(std::move(wire), takes);
}

}  // namespace ganglion::sim
