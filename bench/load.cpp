// A load generator: one thread, epoll, closed loop (each connection asks again when answered) or open loop (requests
// are due at fixed times; latency counts from when a request was due, so a slow server cannot hide by slowing us down).
//
//   bench_load --port P [--path /v1/chat/completions] [--key sk-test] [--connections 32] [--seconds 5] [--rate R]
//              [--body-bytes 1100] [--stream] [--unique] [--count N] [--header "name: value"]
//              [--max-tokens N]
// --unique makes every prompt different. Prints one JSON object.

#include <deque>
#include <vector>

#include "bench/http_io.hpp"

namespace ganglion::bench {
namespace {

struct Connection {
  int fd = -1;
  std::string in;
  std::string out;
  bool busy = false;
  bool head_done = false;
  bool chunked = false;
  bool first = true;        // no body byte of this answer yet
  std::int64_t due = 0;     // when the request should have gone out
  std::int64_t length = 0;  // body bytes still to come, when not chunked
  bool ok = false;
};

class Load {
 public:
  Load(int argc, char** argv)
      : port_(static_cast<int>(to_int(option(argc, argv, "port", "0")))),
        path_(option(argc, argv, "path", "/v1/chat/completions")),
        key_(option(argc, argv, "key", "sk-test")),
        header_(option(argc, argv, "header", "")),
        seconds_(std::atof(option(argc, argv, "seconds", "5").c_str())),
        rate_(std::atof(option(argc, argv, "rate", "0").c_str())),
        count_(to_int(option(argc, argv, "count", "0"))),
        body_bytes_(static_cast<std::size_t>(to_int(option(argc, argv, "body-bytes", "1100")))),
        max_tokens_(to_int(option(argc, argv, "max-tokens", "0"))),
        stream_(flag(argc, argv, "stream")),
        unique_(flag(argc, argv, "unique")) {
    if (!header_.empty()) header_ += "\r\n";
    connections_.resize(static_cast<std::size_t>(to_int(option(argc, argv, "connections", "32"))));
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  }

  int run() {
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (!open(i)) die("connect");
    }
    const std::int64_t began = now_ns();
    const std::int64_t end = began + static_cast<std::int64_t>(seconds_ * 1e9);
    const std::int64_t give_up = end + 10'000'000'000;
    std::int64_t next_due = began;
    const auto interval = rate_ > 0 ? static_cast<std::int64_t>(1e9 / rate_) : 0;
    for (std::size_t i = 0; i < connections_.size(); ++i) idle_.push_back(i);
    std::array<epoll_event, 256> events;
    std::int64_t finished_at = end;
    for (;;) {
      const std::int64_t now = now_ns();
      const bool more = now < end && (count_ == 0 || sent_ < count_);
      if (more && rate_ > 0) {
        for (; next_due <= now; next_due += interval) waiting_.push_back(next_due);
      }
      while (!idle_.empty() && (rate_ > 0 ? !waiting_.empty() : more && (count_ == 0 || sent_ < count_))) {
        const std::size_t i = idle_.front();
        idle_.pop_front();
        std::int64_t due = now_ns();
        if (rate_ > 0) {
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
      if (rate_ > 0 && more) timeout = static_cast<int>(std::max<std::int64_t>((next_due - now) / 1'000'000, 0));
      const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
      for (int k = 0; k < n; ++k) on_socket(static_cast<std::size_t>(events[static_cast<std::size_t>(k)].data.u64));
    }
    report(static_cast<double>(std::min(finished_at, std::max(end, began + 1)) - began) / 1e9);
    return errors_ == 0 ? 0 : 1;
  }

 private:
  bool open(std::size_t i) {
    Connection& c = connections_[i];
    c.fd = connect_to(port_);
    if (c.fd < 0) return false;
    watch(epoll_, c.fd, EPOLLIN | EPOLLRDHUP, i);
    return true;
  }

  void ask(std::size_t i, std::int64_t due) {
    Connection& c = connections_[i];
    std::string body = std::string{R"({"model":"gpt-4o-mini",)"} + (stream_ ? R"("stream":true,)" : "") +
                       R"("messages":[{"role":"user","content":")";
    if (unique_) body += std::to_string(now_ns()) + "-" + std::to_string(sent_) + " ";
    if (body.size() + 4 < body_bytes_) body.append(body_bytes_ - body.size() - 4, 'x');
    body += "\"}]";
    if (max_tokens_ > 0) body += ",\"max_tokens\":" + std::to_string(max_tokens_);
    body += "}";
    std::string out = "POST " + path_ + " HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer " + key_ +
                      "\r\ncontent-type: application/json\r\n" + header_ +
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
    ++errors_;
    Connection& c = connections_[i];
    ::close(c.fd);
    c.busy = false;
    if (open(i)) idle_.push_back(i);
  }

  void done(std::size_t i) {
    Connection& c = connections_[i];
    c.busy = false;
    if (c.ok) {
      latency_.add(now_ns() - c.due);
      ++answered_;
    } else {
      ++errors_;
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
      if (!c.ok && errors_ < 3) std::fprintf(stderr, "%s\n", c.in.c_str());
      c.chunked = header(head, "transfer-encoding") == "chunked";
      c.length = to_int(header(head, "content-length"), 0);
      if (header(head, "cf-aig-cache-status") == "HIT") ++hits_;
      c.in.erase(0, end + 4);
    }
    if (!c.in.empty() && c.first) {
      c.first = false;
      first_byte_.add(now - c.due);
    }
    if (stream_) stamp(c.in, now);
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
      chunk_.add(now - to_int(std::string_view{in}.substr(begin, end - begin), now));
      in[found + 1] = 'C';  // counted
      at = end;
    }
  }

  void report(double seconds) const {
    const auto quantiles = [](const Histogram& h) {
      char text[256];
      std::snprintf(text, sizeof text, "{\"n\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
                    static_cast<unsigned long long>(h.total()), h.quantile_us(0.5), h.quantile_us(0.9),
                    h.quantile_us(0.99), h.quantile_us(0.999), h.max_us());
      return std::string{text};
    };
    std::printf(
        "{\"answered\":%lld,\"errors\":%lld,\"hits\":%lld,\"seconds\":%.3f,\"per_second\":%.1f,\"latency_us\":%s,"
        "\"first_byte_us\":%s,\"chunk_us\":%s}\n",
        static_cast<long long>(answered_), static_cast<long long>(errors_), static_cast<long long>(hits_), seconds,
        static_cast<double>(answered_) / seconds, quantiles(latency_).c_str(), quantiles(first_byte_).c_str(),
        quantiles(chunk_).c_str());
  }

  int port_;
  std::string path_, key_, header_;
  double seconds_, rate_;
  std::int64_t count_;
  std::size_t body_bytes_;
  std::int64_t max_tokens_;
  bool stream_, unique_;
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::deque<std::size_t> idle_;
  std::deque<std::int64_t> waiting_;
  std::int64_t sent_ = 0, answered_ = 0, errors_ = 0, hits_ = 0;
  Histogram latency_, first_byte_, chunk_;
};

}  // namespace
}  // namespace ganglion::bench

int main(int argc, char** argv) {
  return ganglion::bench::Load(argc, argv).run();
}
