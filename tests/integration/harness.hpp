#pragma once
// The whole gateway in this process, on free ports, over a temporary ledger: configured by YAML as an operator would.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "app/application.hpp"
#include "config/loader.hpp"
#include "core/log.hpp"
#include "metering/ledger_reader.hpp"
#include "tests/support/raw_socket.hpp"

namespace ganglion::test {

inline constexpr const char* kAdminToken = "admin-token-0123456789";

class RunningGateway {
 public:
  // `address`: a loopback literal, "127.0.0.1" or "::1", of both listeners. With `directory` (of an earlier gateway,
  // from keep_directory), it goes on where that one stopped. `admin`, `server`: more settings of the two listeners (",
  // hosts:
  // []").
  explicit RunningGateway(const std::string& yaml, unsigned workers = 1, const std::string& address = "127.0.0.1",
                          std::string directory = {}, const std::string& admin = "", const std::string& server = "",
                          app::ModelLoader load_model = {})
      : directory_(std::move(directory)), address_(address) {
    core::set_log_level(core::LogLevel::off);
    char name[] = "/tmp/ganglion-integration-XXXXXX";
    if (directory_.empty()) directory_ = ::mkdtemp(name);
    const std::string listen = "{listen: \"" + (address == "::1" ? "[::1]" : address) + ":0\"";
    const std::string text = "server: " + listen + ", workers: " + std::to_string(workers) + server +
                             "}\nadmin: " + listen + admin +
                             "}\nlog: {level: \"off\", access_log: false}\n"
                             "ledger: {directory: \"" +
                             ledger() + "\"}\n" + yaml;
    auto config =
        config::load_text(text, "test.yaml", {.env = [](std::string_view variable) -> std::optional<std::string> {
                            if (variable == "PROVIDER_KEY") return "sk-provider-canary";
                            if (variable == "APP_KEY") return "sk-app";
                            if (variable == "OTHER_KEY") return "sk-other";
                            if (variable == "ADMIN_TOKEN") return kAdminToken;
                            if (variable == "PEPPER") return "pepper-0123456789abcdef";
                            return std::nullopt;
                          }});
    if (!config) {
      ADD_FAILURE() << config::format(config.error());
      return;
    }
    config->source.clear();
    application_ = std::make_unique<app::Application>(std::make_shared<const config::Config>(std::move(*config)),
                                                      std::move(load_model));
    if (const auto started = application_->start(); !started) {
      ADD_FAILURE() << started.error().message;
      application_.reset();
      return;
    }
    thread_ = std::thread([this] { exit_code_ = application_->run(); });
  }
  ~RunningGateway() {
    stop();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  // Stops, and leaves the directory to the caller.
  std::string keep_directory() {
    stop();
    return std::exchange(directory_, {});
  }

  void stop() {
    if (!thread_.joinable()) return;
    application_->request_stop();
    thread_.join();
    EXPECT_EQ(exit_code_, 0);
    application_.reset();
  }

  std::string ledger() const { return directory_ + "/ledger"; }
  std::uint16_t port() const { return application_->proxy_port(); }

  RawSocket connect() const { return RawSocket::connect(port(), address_); }
  RawSocket connect_admin() const { return RawSocket::connect(application_->admin_port(), address_); }
  // One request on a connection of its own; the whole answer.
  std::string post(const std::string& path, const std::string& body, const std::string& headers = "") const {
    RawSocket socket = connect();
    socket.send(request(path, body, headers));
    return socket.read_message();
  }
  std::string chat(const std::string& extra = "", const std::string& headers = "") const {
    return post("/v1/chat/completions", chat_body(extra), headers);
  }
  std::string get(const std::string& path, bool admin = false) const {
    RawSocket socket = RawSocket::connect(admin ? application_->admin_port() : port(), address_);
    socket.send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return socket.read_message();
  }

  // The sum of a family's samples whose labels hold all of `labels` ("model=\"m\""), as /metrics says now.
  double metric(const std::string& family, const std::vector<std::string>& labels = {}) const {
    std::istringstream lines(body_of(get("/metrics", true)));
    double sum = 0;
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with(family + "{") && !line.starts_with(family + " ")) continue;
      const auto has = [&](const std::string& label) { return line.find(label) != std::string::npos; };
      if (std::ranges::all_of(labels, has)) sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
    return sum;
  }

  static std::string request(const std::string& path, const std::string& body, const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  static std::string chat_body(const std::string& extra = "") {
    return R"({"model":"m",)" + extra + R"("messages":[{"role":"user","content":"hello there"}]})";
  }

  // Stops the gateway and reads what it wrote.
  std::vector<metering::LedgerRecord> records() {
    stop();
    std::vector<metering::LedgerRecord> out;
    EXPECT_TRUE(
        metering::for_each_record(ledger(), {}, [&](const metering::LedgerRecord& record) { out.push_back(record); }));
    const auto report = metering::verify(ledger());
    EXPECT_TRUE(report && report->ok);
    return out;
  }

 private:
  std::string directory_;
  const std::string address_;
  std::unique_ptr<app::Application> application_;
  std::thread thread_;
  int exit_code_ = -1;
};

inline std::string provider(std::uint16_t port, const std::string& extra = "") {
  return "providers:\n  - {name: up, base_url: \"http://127.0.0.1:" + std::to_string(port) +
         "/v1\", api_key: \"${PROVIDER_KEY}\", models: [m]" + extra + "}\n";
}

}  // namespace ganglion::test
