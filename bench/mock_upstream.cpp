// See bench/mock_upstream.hpp.

#include "bench/mock_upstream.hpp"

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "bench/http_io.hpp"

namespace ganglion::bench {
namespace {

struct Connection {
  int fd = -1;
  std::string in;
  std::string out;
  // The answer that is being sent.
  bool busy = false;
  bool stream = false;
  bool usage = false;
  bool close = false;
  int sent_deltas = 0;
  std::string id;
};

class Mock {
 public:
  explicit Mock(const MockOptions& options)
      : port_(options.port),
        delay_ns_(options.delay_ms * 1'000'000),
        deltas_(options.deltas),
        gap_ns_(options.gap_ms * 1'000'000) {
    const std::size_t bytes = options.answer_bytes;
    const std::string frame =
        R"({"id":"chatcmpl-mock","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":25,"completion_tokens":35,"total_tokens":60}})";
    std::string body = frame;
    body.insert(body.find("\"content\":\"") + 11, bytes > frame.size() ? std::string(bytes - frame.size(), 'a') : "");
    whole_ = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " + std::to_string(body.size()) +
             "\r\n\r\n" + body;
    if (!options.journal.empty())
      journal_ = ::open(options.journal.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    listener_ = listen_on(port_);
    watch(epoll_, listener_, EPOLLIN, kListener);
    if (options.until_stdin_closes) watch(epoll_, 0, EPOLLIN | EPOLLHUP, kStdin);
    std::printf("port %d\n", port_);
    std::fflush(stdout);
  }

  void run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms());
      for (int i = 0; i < n; ++i) {
        const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
        if (tag == kStdin) return;
        if (tag == kListener) {
          accept_all();
        } else {
          on_socket(static_cast<int>(tag), events[static_cast<std::size_t>(i)].events);
        }
      }
      const std::int64_t now = now_ns();
      while (!due_.empty() && due_.begin()->first <= now) {
        const auto [at, fd] = *due_.begin();
        due_.erase(due_.begin());
        if (const auto it = connections_.find(fd); it != connections_.end() && it->second.busy) advance(it->second, at);
      }
    }
  }

 private:
  static constexpr std::uint64_t kListener = ~0ULL;
  static constexpr std::uint64_t kStdin = ~0ULL - 1;

  int timeout_ms() const {
    if (due_.empty()) return -1;
    const std::int64_t left = due_.begin()->first - now_ns();
    return left <= 0 ? 0 : static_cast<int>((left + 999'999) / 1'000'000);
  }

  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      set_up(fd);
      connections_[fd].fd = fd;
      watch(epoll_, fd, EPOLLIN | EPOLLRDHUP, static_cast<std::uint64_t>(fd));
    }
  }

  void drop(Connection& c) {
    const int fd = c.fd;
    if (c.busy) note(c, false);
    ::close(fd);
    connections_.erase(fd);
  }

  void on_socket(int fd, std::uint32_t events) {
    const auto it = connections_.find(fd);
    if (it == connections_.end()) return;
    Connection& c = it->second;
    if ((events & EPOLLOUT) != 0 && !flush(c)) return;
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return;
    char buffer[64 * 1024];
    for (;;) {
      const auto n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n > 0) {
        c.in.append(buffer, static_cast<std::size_t>(n));
        if (static_cast<std::size_t>(n) < sizeof buffer) break;
        continue;
      }
      if (n == 0 || errno != EAGAIN) return drop(c);
      break;
    }
    serve(c);
  }

  void serve(Connection& c) {
    while (!c.busy) {
      const std::size_t end = c.in.find("\r\n\r\n");
      if (end == std::string::npos) return;
      const std::string_view head = std::string_view{c.in}.substr(0, end);
      const auto length =
          static_cast<std::size_t>(std::max<std::int64_t>(to_int(header(head, "content-length"), 0), 0));
      if (c.in.size() < end + 4 + length) return;
      const std::string_view body = std::string_view{c.in}.substr(end + 4, length);
      c.id = header(head, "x-request-id");
      c.stream = body.find("\"stream\":true") != std::string_view::npos;
      c.usage = body.find("\"include_usage\":true") != std::string_view::npos;
      c.sent_deltas = 0;
      c.busy = true;
      c.in.erase(0, end + 4 + length);
      const int fd = c.fd;
      if (c.stream) {
        c.out += "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        due_.emplace(now_ns() + delay_ns_, fd);
        flush(c);
        return;
      }
      if (delay_ns_ > 0) {
        due_.emplace(now_ns() + delay_ns_, fd);
        return;
      }
      note(c, true);
      c.out += whole_;
      c.busy = false;
      if (!flush(c)) return;
    }
  }

  void chunk(Connection& c, std::string_view data) {
    char size[20];
    const int n = std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    c.out.append(size, static_cast<std::size_t>(n));
    c.out += data;
    c.out += "\r\n";
  }

  void advance(Connection& c, std::int64_t at) {
    if (!c.stream) {
      note(c, true);
      c.out += whole_;
      c.busy = false;
      if (flush(c)) serve(c);
      return;
    }
    static constexpr std::string_view kHead =
        R"(data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"t)";
    do {
      if (c.sent_deltas < deltas_) {
        chunk(c, std::string{kHead} + std::to_string(now_ns()) + " \"},\"finish_reason\":null}]}\n\n");
        ++c.sent_deltas;
        if (gap_ns_ > 0) {
          due_.emplace(at + gap_ns_, c.fd);
          flush(c);
          return;
        }
      } else {
        chunk(c,
              "data: "
              "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\","
              "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
        if (c.usage) {
          chunk(c,
                "data: "
                "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-"
                "mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":" +
                    std::to_string(deltas_) + ",\"total_tokens\":" + std::to_string(25 + deltas_) + "}}\n\n");
        }
        note(c, true);
        chunk(c, "data: [DONE]\n\n");
        c.out += "0\r\n\r\n";
        c.busy = false;
      }
    } while (c.busy);
    if (flush(c)) serve(c);
  }

  // One line per request, before its last byte: what this side knows it emitted.
  void note(const Connection& c, bool finished) {
    if (journal_ < 0) return;
    const std::string line = "{\"request_id\":\"" + c.id + "\",\"stream\":" + (c.stream ? "true" : "false") +
                             ",\"finished\":" + (finished ? "true" : "false") +
                             ",\"input_tokens\":25,\"output_tokens\":" + std::to_string(c.stream ? c.sent_deltas : 35) +
                             "}\n";
    if (::write(journal_, line.data(), line.size()) < 0) die("journal");
  }

  // False when the connection was dropped.
  bool flush(Connection& c) {
    while (!c.out.empty()) {
      const auto n = ::send(c.fd, c.out.data(), c.out.size(), MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EAGAIN) {
          watch(epoll_, c.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, static_cast<std::uint64_t>(c.fd), EPOLL_CTL_MOD);
          return true;
        }
        drop(c);
        return false;
      }
      c.out.erase(0, static_cast<std::size_t>(n));
    }
    return true;
  }

  int port_;
  std::int64_t delay_ns_;
  int deltas_;
  std::int64_t gap_ns_;
  std::string whole_;
  int journal_ = -1;
  int epoll_ = -1;
  int listener_ = -1;
  std::unordered_map<int, Connection> connections_;
  std::multimap<std::int64_t, int> due_;
};

}  // namespace

void run_mock(const MockOptions& options) {
  Mock(options).run();
}

}  // namespace ganglion::bench
