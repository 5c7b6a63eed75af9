// The table of fields: the Redis that gateways share.

#include <algorithm>

#include "config/tables.hpp"

namespace ganglion::config {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Extra kRestart{.reloads = Reloads::restart};

bool is_host_port(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == text.size() || text.size() > 256) return false;
  std::uint32_t port = 0;
  for (const char c : text.substr(colon + 1)) {
    if (c < '0' || c > '9' || (port = port * 10 + static_cast<std::uint32_t>(c - '0')) > 65535) return false;
  }
  return port != 0 && text.find_first_of("/ @") == std::string_view::npos;
}

Codec<std::vector<std::string>> host_ports() {
  using Names = std::vector<std::string>;
  return {.info = {.kind = TypeInfo::Kind::strings, .name = "list of addresses", .constraint = "`host:port`"},
          .read = [](Reader& reader, const Node& node) -> std::optional<Names> {
            if (node.kind != Node::Kind::list || node.items.empty()) {
              reader.error(node, "expected a list of addresses such as [127.0.0.1:6379], got " +
                                     std::string(node.items.empty() && node.kind == Node::Kind::list
                                                     ? "an empty list; leave the key out to use no Redis"
                                                     : kind_name(node)));
              return std::nullopt;
            }
            Names names;
            for (std::size_t i = 0; i < node.size(); ++i) {
              const Reader::Scope scope(reader, i);
              auto value = reader.scalar(node.items[i], "an address such as 127.0.0.1:6379");
              if (!value) continue;
              if (!is_host_port(value->text)) {
                reader.error(node.items[i], "\"" + value->text +
                                                "\" is no host:port such as redis.internal:6379 (without scheme, user "
                                                "or path; those have keys of their own)");
                continue;
              }
              names.push_back(std::move(value->text));
            }
            return names;
          },
          .write =
              [](const Names& names, Secrets) {
                if (names.empty()) return Value{};
                ValueList out;
                for (const std::string& name : names) out.push_back(Value{name});
                return Value{std::move(out)};
              }};
}

// Anything printable without spaces; may be empty.
Codec<std::string> word() {
  return {.info = {.kind = TypeInfo::Kind::text, .name = "text", .constraint = "at most 128 characters, no spaces"},
          .read = [](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = reader.scalar(node, "text");
            if (!value) return std::nullopt;
            const bool good = value->text.size() <= 128 && std::ranges::none_of(value->text, [](char c) {
                                return static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
                              });
            if (good) return std::move(value->text);
            reader.error(node, "expected at most 128 characters without spaces");
            return std::nullopt;
          },
          .write = [](const std::string& value, Secrets) { return Value{value}; }};
}

Codec<net::RedisCluster> cluster() {
  const Codec<std::string> words = choice({"auto", "on", "off"});
  return {.info = words.info,
          .read = [read = words.read](Reader& reader, const Node& node) -> std::optional<net::RedisCluster> {
            const auto word = read(reader, node);
            if (!word) return std::nullopt;
            return *word == "on"    ? net::RedisCluster::on
                   : *word == "off" ? net::RedisCluster::off
                                    : net::RedisCluster::automatic;
          },
          .write =
              [](const net::RedisCluster& value, Secrets) {
                return Value{std::string(value == net::RedisCluster::on    ? "on"
                                         : value == net::RedisCluster::off ? "off"
                                                                           : "auto")};
              }};
}

Table<net::RedisOptions> redis_tls_table() {
  using T = net::RedisOptions;
  const auto verify = [](auto& r) -> auto& { return r.tls_client.verify; };
  const auto ca = [](auto& r) -> auto& { return r.tls_client.ca_file; };
  return {{
      entry<T>("enabled", &T::tls, boolean(), "Speak TLS to Redis.", kRestart),
      entry<T>("verify", verify, boolean(), "Check the server's certificate. Turn it off only in a test.", kRestart),
      entry<T>("ca", ca, path(), "PEM file of trusted authorities, relative to this file; unset: the system's.",
               kRestart),
      entry<T>("cert", &T::tls_cert_file, path(),
               "PEM file with our certificate chain, where the server asks for one; relative to this file.", kRestart),
      entry<T>("key", &T::tls_key_file, path(), "PEM file with its private key; relative to this file.", kRestart),
  }};
}

}  // namespace

Table<net::RedisOptions> redis_table() {
  using T = net::RedisOptions;
  constexpr auto self = [](auto& r) -> auto& { return r; };
  return {{
      entry<T>(
          "addresses", &T::addresses, host_ports(),
          "Servers. Of a cluster, some of its nodes; of a standalone Redis, one, or several that take over from one "
          "another (the first that answers and can be written to is used).",
          {.reloads = Reloads::restart, .example = "[127.0.0.1:6379]"}),
      entry<T>("cluster", &T::cluster, cluster(), "Whether it is a Redis Cluster; `auto` asks it.", kRestart),
      entry<T>("username", &T::username, word(), "ACL user; empty: the default user.", kRestart),
      entry<T>("password", &T::password, secret(), "Password of the user.",
               {.reloads = Reloads::restart, .example = "${REDIS_PASSWORD}"}),
      entry<T>("database", &T::database, integer(0, 1023), "Database number; a cluster has only 0.", kRestart),
      section<T>("tls", self, redis_tls_table(), "TLS towards Redis."),
      entry<T>("key_prefix", &T::key_prefix, word(),
               "Put before every key and channel, so that several installations may share one Redis.", kRestart),
      entry<T>("command_timeout", &T::command_timeout, duration(milliseconds{1}, seconds{10}),
               "The longest a request waits for Redis before it goes on without it.", kRestart),
      entry<T>("connect_timeout", &T::connect_timeout, duration(milliseconds{10}, seconds{10}),
               "Name look-up, TCP, TLS and login of one attempt.", kRestart),
      entry<T>("hung_after", &T::hung_after, duration(milliseconds{5}, seconds{10}),
               "When commands wait and nothing was heard for so long, the connection is dropped and the circuit opens.",
               kRestart),
  }};
}

}  // namespace ganglion::config
