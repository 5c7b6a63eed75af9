// See redis_resp.hpp.

#include "net/redis_resp.hpp"

#include <charconv>

namespace ganglion::net::redis {
namespace {

// A status, error or integer that has not ended by then is not one; hiredis would scan it again with every piece.
constexpr std::size_t kLineBytesMax = 64 * 1024;

template <class Int>
std::optional<Int> number(std::string_view text) {
  Int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// "3999 127.0.0.1:6381"
bool read_target(std::string_view text, ErrorLine& out) {
  const auto space = text.find(' ');
  if (space == std::string_view::npos) return false;
  const auto slot = number<unsigned>(text.substr(0, space));
  const auto to = parse_address(text.substr(space + 1));
  if (!slot || *slot >= kRedisSlots || !to) return false;
  out.slot = *slot;
  out.to = *to;
  return true;
}

struct Row {
  std::string_view word;
  RedisFailure failure;
  bool store_is_down;
};
constexpr Row kRows[] = {
    {"LOADING", RedisFailure::loading, true},      {"MASTERDOWN", RedisFailure::loading, true},
    {"CLUSTERDOWN", RedisFailure::loading, true},  {"BUSY", RedisFailure::loading, true},
    {"READONLY", RedisFailure::read_only, true},   {"MISCONF", RedisFailure::read_only, true},
    {"NOREPLICAS", RedisFailure::read_only, true}, {"OOM", RedisFailure::no_memory, false},
    {"NOAUTH", RedisFailure::denied, true},        {"WRONGPASS", RedisFailure::denied, true},
    {"NOPERM", RedisFailure::denied, false},
};

}  // namespace

redisReplyObjectFunctions RespReader::functions_{
    .createString = make_text,
    .createArray = make_array,
    .createInteger = make_integer,
    .createNil = make_nil,
    .freeObject = [](void*) {},  // all are part of root_
};

RespReader::RespReader(std::size_t reply_bytes_max)
    : bytes_max_(reply_bytes_max), reader_(redisReaderCreateWithFunctions(&functions_)) {
  if (!reader_) throw std::bad_alloc();
  reader_->privdata = this;
}

RespReader& RespReader::self(const redisReadTask* task) {
  return *static_cast<RespReader*>(task->privdata);
}

bool RespReader::spend(std::size_t bytes) {
  spent_ += bytes;
  over_ = over_ || spent_ > bytes_max_;
  return !over_;
}

void* RespReader::make(const redisReadTask* task, RedisReply::Type type) {
  RedisReply& reply = task->parent == nullptr
                          ? self(task).root_
                          : static_cast<RedisReply*>(task->parent->obj)->items[static_cast<std::size_t>(task->idx)];
  reply.type = type;
  return &reply;
}

void* RespReader::make_text(const redisReadTask* task, char* bytes, std::size_t size) {
  if (!self(task).spend(size)) return nullptr;
  const auto type = task->type == REDIS_REPLY_ERROR    ? RedisReply::Type::error
                    : task->type == REDIS_REPLY_STATUS ? RedisReply::Type::status
                                                       : RedisReply::Type::string;
  void* const made = make(task, type);
  static_cast<RedisReply*>(made)->text.assign(bytes, size);
  return made;
}

void* RespReader::make_array(const redisReadTask* task, int items) {
  if (!self(task).spend(static_cast<std::size_t>(items) * sizeof(RedisReply))) return nullptr;
  void* const made = make(task, RedisReply::Type::array);
  static_cast<RedisReply*>(made)->items.resize(static_cast<std::size_t>(items));
  return made;
}

void* RespReader::make_integer(const redisReadTask* task, long long value) {
  void* const made = make(task, RedisReply::Type::integer);
  static_cast<RedisReply*>(made)->integer = value;
  return made;
}

void* RespReader::make_nil(const redisReadTask* task) {
  return make(task, RedisReply::Type::nil);
}

void RespReader::feed(std::string_view bytes) {
  redisReaderFeed(reader_.get(), bytes.data(), bytes.size());
}

std::expected<std::optional<RedisReply>, std::string> RespReader::next() {
  void* made = nullptr;
  if (redisReaderGetReply(reader_.get(), &made) != REDIS_OK) {
    return std::unexpected(over_ ? std::string{"an answer is larger than is allowed"}
                                 : std::string{redisReaderGetError(reader_.get())});
  }
  if (made == nullptr) {
    const std::string_view held{reader_->buf + reader_->pos, reader_->len - reader_->pos};
    if (held.size() > bytes_max_ + kLineBytesMax) return std::unexpected("an answer is larger than is allowed");
    // hiredis looks for the end of the line again with every piece.
    if (held.size() > kLineBytesMax && held.substr(0, kLineBytesMax).find('\n') == std::string_view::npos) {
      return std::unexpected("an endless line");
    }
    return std::nullopt;
  }
  spent_ = 0;
  RedisReply reply = std::move(root_);
  root_ = {};
  return reply;
}

std::string Address::str() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" : "") + host + (v6 ? "]:" : ":") + std::to_string(port);
}

std::optional<Address> parse_address(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto port = number<std::uint16_t>(text.substr(colon + 1));
  if (!port || *port == 0) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return Address{.host = std::string{host}, .port = *port};
}

ErrorLine read_error(std::string_view line) {
  ErrorLine out;
  // Servers before 7 wrap what a script ran into: "ERR Error running script (...): ... : -READONLY You can't ...".
  if (line.starts_with("ERR Error running script")) {
    if (const auto at = line.find(": -"); at != std::string_view::npos) line.remove_prefix(at + 3);
  }
  const std::string_view word = line.substr(0, line.find(' '));
  const std::string_view rest = line.substr(std::min(line.size(), word.size() + 1));
  if (word == "MOVED" || word == "ASK") {
    if (!read_target(rest, out)) return out;
    out.ask = word == "ASK" ? ErrorLine::Ask::ask : ErrorLine::Ask::moved;
    out.failure = RedisFailure::redirected;
  } else if (word == "TRYAGAIN") {
    out.ask = ErrorLine::Ask::try_again;
    out.failure = RedisFailure::loading;
  } else if (word == "NOSCRIPT") {
    out.ask = ErrorLine::Ask::load_script;
  } else if (line.starts_with("ERR invalid password") || line.starts_with("ERR Client sent AUTH") ||
             line.starts_with("ERR AUTH <password> called")) {
    out.failure = RedisFailure::denied;
    out.store_is_down = true;
  }
  for (const Row& row : kRows) {
    if (word != row.word) continue;
    out.failure = row.failure;
    out.store_is_down = row.store_is_down;
  }
  return out;
}

}  // namespace ganglion::net::redis
