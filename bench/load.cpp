// See bench/load.hpp.

#include "bench/load.hpp"

#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "bench/http_io.hpp"

namespace ganglion::bench {
namespace {

struct Connection {
  int fd = -1;
  std::string in;
  bool busy = false;
  bool head_done = false;
  bool chunked = false;
  bool first = true;     // no body byte of this answer yet
  std::int64_t due = 0;  // when the request should have gone out
  std::int64_t first_at = 0;
  std::int64_t length = 0;  // body bytes still to come, when not chunked
  bool ok = false;
};

class Load {
 public:
  explicit Load(const LoadOptions& options)
      : options_(options),
        header_(options.header.empty() ? "" : options.header + "\r\n"),
        connections_(options.connections),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
  ~Load() {
    for (const Connection& c : connections_) {
      if (c.fd >= 0) ::close(c.fd);
    }
    ::close(epoll_);
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  std::expected<LoadResult, std::string> run() {
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (!open(i)) return std::unexpected("cannot connect to " + options_.authority + ": " + std::strerror(errno));
    }
    const std::int64_t began = now_ns();
    const std::int64_t end = began + static_cast<std::int64_t>(options_.seconds * 1e9);
    const std::int64_t give_up = end + 10'000'000'000;
    std::int64_t next_due = began;
    const auto interval = options_.rate > 0 ? static_cast<std::int64_t>(1e9 / options_.rate) : 0;
    for (std::size_t i = 0; i < connections_.size(); ++i) idle_.push_back(i);
    std::array<epoll_event, 256> events;
    std::int64_t finished_at = end;
    for (;;) {
      const std::int64_t now = now_ns();
      const bool more = now < end && (options_.count == 0 || sent_ < options_.count);
      if (more && options_.rate > 0) {
        for (; next_due <= now; next_due += interval) waiting_.push_back(next_due);
      }
      while (!idle_.empty() &&
             (options_.rate > 0 ? !waiting_.empty() : more && (options_.count == 0 || sent_ < options_.count))) {
        const std::size_t i = idle_.front();
        idle_.pop_front();
        std::int64_t due = now_ns();
        if (options_.rate > 0) {
          due = waiting_.front();
          waiting_.pop_front();
        }
        ask(i, due);
      }
      if (!more && (idle_.size() == connections_.size() || now > give_up)) {
        finished_at = std::min(now, std::max(end, now));
        break;
      }
      int timeout = 100;
      if (options_.rate > 0 && more)
        timeout = static_cast<int>(std::max<std::int64_t>((next_due - now) / 1'000'000, 0));
      const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
      for (int k = 0; k < n; ++k) on_socket(static_cast<std::size_t>(events[static_cast<std::size_t>(k)].data.u64));
    }
    result_.seconds = static_cast<double>(std::min(finished_at, std::max(end, began + 1)) - began) / 1e9;
    return std::move(result_);
  }

 private:
  bool open(std::size_t i) {
    Connection& c = connections_[i];
    c.fd = connect_to(options_.address, options_.address_size);
    if (c.fd < 0) return false;
    watch(epoll_, c.fd, EPOLLIN | EPOLLRDHUP, i);
    return true;
  }

  void ask(std::size_t i, std::int64_t due) {
    Connection& c = connections_[i];
    std::string body = "{\"model\":\"" + options_.model + "\"," + (options_.stream ? R"("stream":true,)" : "") +
                       R"("messages":[{"role":"user","content":")";
    if (options_.unique) body += std::to_string(now_ns()) + "-" + std::to_string(sent_) + " ";
    if (body.size() + 4 < options_.body_bytes) body.append(options_.body_bytes - body.size() - 4, 'x');
    body += "\"}]";
    if (options_.max_tokens > 0) body += ",\"max_tokens\":" + std::to_string(options_.max_tokens);
    body += "}";
    std::string out = "POST " + options_.path + " HTTP/1.1\r\nhost: " + options_.authority +
                      "\r\nauthorization: Bearer " + options_.key + "\r\ncontent-type: application/json\r\n" + header_ +
                      "content-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    c.busy = true;
    c.head_done = c.chunked = c.ok = false;
    c.first = true;
    c.due = due;
    c.in.clear();
    ++sent_;
    // The requests are small against the socket buffer; a short write is an overloaded receiver and counts as an error.
    if (::send(c.fd, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size())) fail(i);
  }

  void fail(std::size_t i) {
    ++result_.errors;
    Connection& c = connections_[i];
    ::close(c.fd);
    c.busy = false;
    if (open(i)) idle_.push_back(i);
  }

  void done(std::size_t i) {
    Connection& c = connections_[i];
    c.busy = false;
    if (c.ok) {
      const std::int64_t now = now_ns();
      result_.latency.add(now - c.due);
      if (options_.stream && options_.max_tokens > 1) {
        result_.token.add((now - c.first_at) / (options_.max_tokens - 1));
      }
      ++result_.answered;
    } else {
      ++result_.errors;
    }
    idle_.push_back(i);
  }

  void on_socket(std::size_t i) {
    Connection& c = connections_[i];
    char buffer[64 * 1024];
    const auto n = ::recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || !c.busy) return fail(i);
    const std::int64_t now = now_ns();
    c.in.append(buffer, static_cast<std::size_t>(n));
    if (!c.head_done) {
      const std::size_t end = c.in.find("\r\n\r\n");
      if (end == std::string::npos) return;
      const std::string_view head = std::string_view{c.in}.substr(0, end + 2);
      c.head_done = true;
      c.ok = head.substr(9, 3) == "200";
      if (!c.ok && result_.errors < 3) std::fprintf(stderr, "%s\n", c.in.c_str());
      c.chunked = header(head, "transfer-encoding") == "chunked";
      c.length = to_int(header(head, "content-length"), 0);
      if (header(head, "cf-aig-cache-status") == "HIT") ++result_.hits;
      c.in.erase(0, end + 4);
    }
    if (!c.in.empty() && c.first) {
      c.first = false;
      c.first_at = now;
      result_.first_byte.add(now - c.due);
    }
    if (options_.stream) stamp(c.in, now);
    if (!c.chunked) {
      if (static_cast<std::int64_t>(c.in.size()) >= c.length) done(i);
      return;
    }
    if (c.in.ends_with("0\r\n\r\n")) return done(i);
    if (c.in.size() > 64) c.in.erase(0, c.in.size() - 64);  // enough to see the end, and a stamp cut in two
  }

  // Deltas of the mock carry `"t<ns> "`: the time it took one to get here.
  void stamp(std::string& in, std::int64_t now) {
    static constexpr std::string_view kMark = "\"content\":\"t";
    std::size_t at = 0;
    for (;;) {
      const std::size_t found = in.find(kMark, at);
      if (found == std::string::npos) break;
      const std::size_t begin = found + kMark.size();
      const std::size_t end = in.find(' ', begin);
      if (end == std::string::npos) break;
      result_.chunk.add(now - to_int(std::string_view{in}.substr(begin, end - begin), now));
      in[found + 1] = 'C';  // counted
      at = end;
    }
  }

  const LoadOptions& options_;
  const std::string header_;
  std::vector<Connection> connections_;
  const int epoll_;
  std::deque<std::size_t> idle_;
  std::deque<std::int64_t> waiting_;
  std::int64_t sent_ = 0;
  LoadResult result_;
};

}  // namespace

std::expected<LoadResult, std::string> run_load(const LoadOptions& options) {
  return Load(options).run();
}

}  // namespace ganglion::bench
