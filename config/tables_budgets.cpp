// The table of fields: budgets, what they reserve, and where their alerts go.

#include <charconv>

#include "config/tables.hpp"

namespace ganglion::config {
namespace {

constexpr Extra kRestart{.reloads = Reloads::restart};
constexpr std::int64_t kPercentMax = 1'000;
constexpr std::size_t kPercentagesMax = 16;
constexpr std::int64_t kWindowMin_s = 60;
constexpr std::int64_t kWindowMax_s = 366 * 86'400;

bool is_window(std::string_view text) {
  if (text == "hour" || text == "day" || text == "week" || text == "month") return true;
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const std::int64_t factor = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3'600 : unit == "d" ? 86'400 : 0;
  return error == std::errc{} && factor != 0 && count > 0 && count <= kWindowMax_s / factor &&
         count * factor >= kWindowMin_s;
}

Codec<std::string> window() {
  const std::string constraint = "hour, day, week or month (UTC; weeks begin on Monday), or a length from 1m to 366d";
  return {.info = {.kind = TypeInfo::Kind::text,
                   .name = "window",
                   .constraint = constraint,
                   .pattern = "^(hour|day|week|month|[0-9]+[smhd])$"},
          .read = [constraint](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = reader.scalar(node, "a window such as month or 24h");
            if (!value) return std::nullopt;
            if (is_window(value->text)) return std::move(value->text);
            reader.error(node, "expected " + constraint + ", got \"" + value->text + "\"");
            return std::nullopt;
          },
          .write = [](const std::string& value, Secrets) { return Value{value}; }};
}

Codec<std::string> tag() {
  return {.info = {.kind = TypeInfo::Kind::text, .name = "tag", .constraint = "`team` or `team=red`"},
          .read = [](Reader& reader, const Node& node) -> std::optional<std::string> {
            auto value = reader.scalar(node, "a tag such as team or team=red");
            if (!value) return std::nullopt;
            const std::size_t name = std::min(value->text.find('='), value->text.size());
            if (name > 0 && name <= 64 && value->text.size() <= 320) return std::move(value->text);
            reader.error(node, "expected a tag's name of at most 64 bytes, or name=value, such as team=red");
            return std::nullopt;
          },
          .write = [](const std::string& value, Secrets) { return Value{value}; }};
}

Codec<metering::OnExceed> on_exceed() {
  const Codec<std::string> words = choice({"cut", "finish"});
  return {.info = words.info,
          .read = [read = words.read](Reader& reader, const Node& node) -> std::optional<metering::OnExceed> {
            const auto word = read(reader, node);
            if (!word) return std::nullopt;
            return *word == "cut" ? metering::OnExceed::cut : metering::OnExceed::finish;
          },
          .write = [](const metering::OnExceed& value,
                      Secrets) { return Value{std::string(value == metering::OnExceed::cut ? "cut" : "finish")}; }};
}

}  // namespace

Codec<std::vector<std::uint32_t>> percentages() {
  using List = std::vector<std::uint32_t>;
  const Codec<std::int64_t> item = integer(1, kPercentMax);
  TypeInfo info = item.info;
  info.kind = TypeInfo::Kind::integers;
  info.name = "list of percentages";
  return {.info = info,
          .read = [read = item.read](Reader& reader, const Node& node) -> std::optional<List> {
            if (node.kind != Node::Kind::list || node.items.size() > kPercentagesMax) {
              reader.error(node, "expected a list of at most 16 percentages such as [50, 80, 100]");
              return std::nullopt;
            }
            List out;
            for (std::size_t i = 0; i < node.size(); ++i) {
              const Reader::Scope scope(reader, i);
              if (const auto value = read(reader, node.items[i])) out.push_back(static_cast<std::uint32_t>(*value));
            }
            return out;
          },
          .write =
              [](const List& list, Secrets) {
                ValueList out;
                for (const std::uint32_t value : list) out.push_back(Value{std::int64_t{value}});
                return Value{std::move(out)};
              }};
}

Table<metering::BudgetOptions> budget_table() {
  using T = metering::BudgetOptions;
  return {{
      entry<T>("name", &T::name, identifier(), "Its name, in refusals, alerts and metrics.", {.required = true}),
      entry<T>("key", &T::key, identifier(), "Binds requests of this key only."),
      entry<T>("tenant", &T::tenant, identifier(), "Binds requests of this tenant only."),
      entry<T>("gateway", &T::gateway, identifier(), "Binds requests under this policy only."),
      entry<T>("model", &T::model, model_name(), "Binds requests for this model only."),
      entry<T>(
          "tag", &T::tag, tag(),
          "Binds requests with this entry in their `cf-aig-metadata` header only. Clients choose their tags: put a "
          "budget of their tenant or key beside it."),
      entry<T>("per", &T::per, choice({"key", "tenant", "gateway", "model", "tag"}),
               "Not one budget for all, but one of this size for each key, tenant, ...; with `tag`, for each value of "
               "the tag that `tag` names (requests without it share one)."),
      entry<T>("neurons", &T::limit_neurons, decimal(), "What a window allows, in neurons. Either this or `usd`."),
      entry<T>("usd", &T::limit_usd, decimal(),
               "What a window allows, in USD at list price; free neurons are not taken off."),
      entry<T>("window", &T::window, window(), "When it begins anew; a length is a sliding window."),
      entry<T>("on_exceed", &T::on_exceed, on_exceed(),
               "A stream that runs past what was reserved for it, when there is no more: `cut` ends it with "
               "`budget_exceeded`, `finish` lets it end and counts what it costs over the limit."),
      entry<T>("alerts", &T::alerts, percentages(), "Percentages of the amount at which an alert is raised."),
  }};
}

Table<metering::ReserveOptions> budget_reserve_table() {
  using T = metering::ReserveOptions;
  return {{
      entry<T>("max_output", &T::output_max, integer(1, 100'000'000),
               "Tokens of an answer where neither the request (max_tokens) nor the model (max_output) sets a maximum."),
      entry<T>("stream_step", &T::stream_step, integer_or("off", 0, 0, 100'000'000),
               "A stream without max_tokens reserves so many tokens at a time, counting one for each byte of text, "
               "instead of its whole maximum; hidden reasoning is then not reserved for."),
      entry<T>("media_tokens", &T::media_tokens, integer(0, 100'000'000), "Prompt tokens of one image, sound or file."),
  }};
}

Table<metering::BudgetAlertOptions> budget_alerts_table() {
  using T = metering::BudgetAlertOptions;
  return {{
      entry<T>("webhook", &T::webhook, url(), "Called with a JSON body, once for each percentage and window.",
               kRestart),
      entry<T>("secret", &T::secret, secret(), "Signs each call: HMAC-SHA-256 over the timestamp, a dot and the body.",
               kRestart),
      entry<T>("max_attempts", &T::attempts_max, integer(1, 1'000),
               "Calls of the webhook for one alert, with growing pauses from 1 s to 10 min; then it is given up.",
               kRestart),
      entry<T>("max_queue", &T::queue_max, integer(1, 1'000'000),
               "Alerts waiting to be sent; past it new ones are dropped and counted.", kRestart),
  }};
}

Table<gateway::BudgetShareOptions> budget_sharing_table() {
  using T = gateway::BudgetShareOptions;
  using std::chrono::hours;
  using std::chrono::milliseconds;
  return {{
      entry<T>("enabled", &T::enabled, boolean(),
               "Budgets hold for all gateways together, where `redis` is configured; off: for each by itself.",
               kRestart),
      entry<T>("gateways", &T::gateways, integer(1, 1'000),
               "How many gateways share. After Redis lost its data, grants wait for so many to register; a budget that "
               "Redis was never asked about is shared evenly by so many while Redis does not answer.",
               kRestart),
      entry<T>("share_in_outage", &T::share_in_outage, boolean(),
               "While Redis does not answer, a new window's budget is used up to its even share. Off: what was not "
               "granted before is refused.",
               kRestart),
      entry<T>("interval", &T::interval, duration(milliseconds{10}, milliseconds{10'000}),
               "Between two exchanges with Redis; a request that waits for a slice does not wait for it.", kRestart),
      entry<T>("lapse", &T::lapse, duration(milliseconds{1'000}, hours{24}),
               "A gateway that was not heard of for so long holds no slice any more; what it has spent stays.",
               kRestart),
      entry<T>("rebuild", &T::rebuild, duration(milliseconds{0}, milliseconds{60'000}),
               "After Redis lost its data, nothing new is granted until all gateways have registered, or for so long.",
               kRestart),
      entry<T>("patience", &T::patience, duration(milliseconds{0}, milliseconds{60'000}),
               "A request waits for a slice at most so long.", kRestart),
  }};
}

}  // namespace ganglion::config
