// See oracle.hpp. The letters are those of the contract in docs/ledger.md's terms: A one record a request, B an answer
// that arrived is billed, exactly, C every attempt is covered, D sums agree, E nothing twice.

#include "tests/simulation/oracle.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "metering/ledger_reader.hpp"

namespace ganglion::sim {
namespace {

using metering::LedgerRecord;
using metering::Outcome;

constexpr int kInputBase = 20;
constexpr std::int64_t kNano = 1'000'000'000;

int number_of(const LedgerRecord& record) {
  for (const auto& tag : record.tags)
    if (tag.name == "n") return std::atoi(tag.value.c_str());
  return -1;
}

bool charged(const LedgerRecord& record) {
  return record.nano_neurons > 0;
}

// The attempt whose usage this is; -1: it was counted by us.
int attempt_of(const LedgerRecord& record) {
  return record.estimated ? -1 : static_cast<int>(record.units.input_tokens) - kInputBase;
}

std::string describe(const LedgerRecord& record) {
  std::string out = "record " + std::to_string(record.sequence) + ": request " + std::to_string(number_of(record)) +
                    " " + std::string{metering::name(record.outcome)} + " " + record.reason + ", " +
                    std::to_string(record.units.input_tokens) + "+" + std::to_string(record.units.output_tokens) +
                    " tokens" + (record.estimated ? " estimated" : "") + (charged(record) ? ", charged" : "") +
                    ", tries:";
  for (const auto& each : record.attempts)
    out += " " + each.backend + "/" + std::to_string(each.http_status) + "/" + each.reason;
  return out;
}

}  // namespace

double metric(const std::string& page, const std::string& family) {
  double sum = -1;
  std::size_t at = 0;
  while ((at = page.find("\n" + family, at)) != std::string::npos) {
    const std::size_t end = page.find('\n', at + 1);
    const std::string line = page.substr(at + 1, end - at - 1);
    at = at + 1;
    const char after = line[family.size()];
    if (after != ' ' && after != '{') continue;
    sum = std::max(sum, 0.0) + std::atof(line.c_str() + line.rfind(' '));
  }
  return sum;
}

void Oracle::read() {
  for (int i = 0; i < gateways; ++i) {
    const auto report = metering::verify(ledger(i));
    if (!report) return wrong("the ledger cannot be read: " + report.error().message);
    if (!report->ok) wrong("the ledger is damaged: " + metering::describe(*report));
    if (report->open_intents != 0)
      wrong("after an orderly end " + std::to_string(report->open_intents) + " intents are open");
    std::int64_t& spent = spent_.emplace_back(0);
    const auto done = metering::for_each_record(ledger(i), {}, [&](const LedgerRecord& record) {
      records_.push_back(record);
      if (record.key_id == "a") spent += record.nano_neurons;
    });
    if (!done) wrong("the records cannot be read: " + done.error().message);
  }
  verdict_.records = records_.size();
  for (const LedgerRecord& record : records_) verdict_.lines.push_back(describe(record));
}

// A, and that recovery invents nothing.
void Oracle::no_record_is_invented() {
  for (const auto& asked : world_.asked()) asked_[asked->number] = asked.get();
  for (const LedgerRecord& record : records_) {
    const int number = number_of(record);
    const auto asked = asked_.find(number);
    if (asked == asked_.end()) {
      wrong("record " + std::to_string(record.sequence) + " is of no request that was sent");
      continue;
    }
    if (!by_number_.emplace(number, &record).second)
      wrong("request " + std::to_string(number) + " has two records, the second is " + std::to_string(record.sequence));
    by_prompt_[asked->second->prompt].push_back(&record);
    verdict_.billed += charged(record) ? 1 : 0;
    verdict_.aborted += record.outcome == Outcome::aborted ? 1 : 0;
    if (record.key_id != asked->second->key) wrong("request " + std::to_string(number) + " is billed to another key");
    if (!charged(record)) continue;
    if (record.nano_neurons != static_cast<std::int64_t>(record.units.output_tokens) * kNano)
      wrong("request " + std::to_string(number) + " is charged " + std::to_string(record.nano_neurons) + " for " +
            std::to_string(record.units.output_tokens) + " tokens");
    if (record.units.output_tokens > static_cast<std::uint64_t>(asked->second->max_tokens))
      wrong("request " + std::to_string(number) + " is billed more than it could use");
  }
}

// B and D.
void Oracle::every_answer_is_billed_once() {
  for (const LedgerRecord& record : records_) {
    const int attempt = attempt_of(record);
    if (!charged(record) || attempt < 0) continue;
    if (static_cast<std::size_t>(attempt) >= world_.received().size()) {
      wrong("record " + std::to_string(record.sequence) + " has usage that no provider sent");
      continue;
    }
    const Received& received = *world_.received()[static_cast<std::size_t>(attempt)];
    if (!of_attempt_.emplace(attempt, &record).second) wrong("attempt " + std::to_string(attempt) + " is billed twice");
    if (static_cast<int>(record.units.output_tokens) != received.output)
      wrong("attempt " + std::to_string(attempt) + " is billed as " + std::to_string(record.units.output_tokens) +
            " tokens and was " + std::to_string(received.output));
  }
  for (const auto& asked : world_.asked()) {
    const std::string who = "client " + std::to_string(asked->number);
    if (!asked->problem.empty()) wrong(who + " got an answer that cannot be read: " + asked->problem);
    if (!asked->complete || asked->status != 200) continue;
    if (asked->answer < 0 || static_cast<std::size_t>(asked->answer) >= world_.received().size()) {
      wrong(who + " has a whole answer that no provider gave");
      continue;
    }
    const Received& received = *world_.received()[static_cast<std::size_t>(asked->answer)];
    if (received.prompt != asked->prompt) wrong(who + " got the answer to another question");
    if (!received.all_sent) wrong(who + " has a whole answer that was never whole");
    if (received.output >= 0) {
      const auto billed = of_attempt_.find(asked->answer);
      if (billed == of_attempt_.end())
        wrong(who + " has a whole answer, attempt " + std::to_string(asked->answer) + ", that is on no bill");
      else if (billed->second->key_id != asked->key)
        wrong(who + " has the answer to another tenant's question");
      continue;
    }
    bool counted = false;  // no usage came: counted by us
    for (const LedgerRecord* record : by_prompt_[asked->prompt])
      counted = counted || (record->estimated && record->outcome == Outcome::completed);
    if (!counted) wrong(who + " has a whole answer without usage, and no estimate is on the bill");
  }
}

// An intent survives the death of its process at once, a loss of power only with the next sync: one of the same life,
// or of a start since.
bool Oracle::may_be_lost(int life) const {
  for (const int lost : power_lost) {
    if (lost == life) return true;
    for (const auto& [gateway, lives] : served) {
      const auto since = lives.upper_bound(life);
      if (lost > life && (since == lives.end() || *since > lost)) return true;
    }
  }
  return false;
}

// C: what reached a provider is in a record, unless the power failed before the intent was on the disk.
void Oracle::every_attempt_is_covered() {
  std::map<std::string, std::size_t> reached;
  for (const auto& received : world_.received())
    if (!may_be_lost(received->life)) ++reached[received->prompt];
  for (const auto& [prompt, times] : reached) {
    std::size_t listed = 0;
    for (const LedgerRecord* record : by_prompt_[prompt]) listed += record->attempts.size();
    if (listed < times)
      wrong("'" + prompt + "' reached providers " + std::to_string(times) + " times, the ledger knows of " +
            std::to_string(listed));
  }
}

void Oracle::keys_are_charged_once() {
  // Where Redis was ill, each gateway may have gone on by itself, with an answer of its own.
  std::map<std::string, int> charges;
  std::map<std::string, int> answers;
  const auto name = [this](const Asked& asked) {
    return asked.idempotency_key + (redis_troubled ? " at gateway " + std::to_string(asked.gateway) : "");
  };
  for (const auto& asked : world_.asked()) {
    if (asked->idempotency_key.empty()) continue;
    const auto record = by_number_.find(asked->number);
    if (record != by_number_.end() && charged(*record->second) && ++charges[name(*asked)] > 1)
      wrong("key " + name(*asked) + " is charged twice");
    if (!asked->good() || redis_troubled) continue;
    const auto [first, fresh] = answers.emplace(name(*asked), asked->answer);
    if (!fresh && first->second != asked->answer) wrong("key " + name(*asked) + " has two answers");
  }
}

void Oracle::limits_hold() {
  std::int64_t spent = 0;
  for (const std::int64_t each : spent_) spent += each;
  // A gateway that does not come back after Redis has lost its data is not counted after a while: docs/budgets.md.
  const bool forgotten = redis_lost_data && !absent.empty();
  // Of a budget that it has not asked Redis about when that falls ill, a gateway uses its share, whatever the others
  // have.
  const bool shared_out =
      share_in_outage && std::ranges::any_of(redis_troubles, [](const auto& each) { return each.second > 0; });
  if (spent > budget_nano + (shared_out ? budget_nano / 2 : 0) && !forgotten)
    wrong("the budget of " + std::to_string(budget_nano / kNano) + " neurons is spent with " +
          std::to_string(spent / kNano));
  for (std::size_t i = 0; i < budgets_pages.size(); ++i) page_agrees("at the end", budgets_pages[i], spent_[i]);
  // A gateway that has ended holds its slice until it is asked again, or for budget_sharing.lapse.
  if (budget_refuses && spent + kNano <= budget_nano && gateways == 1)
    wrong("the budget refuses a token with " + std::to_string(spent / kNano) + " of " +
          std::to_string(budget_nano / kNano) + " neurons spent");
  for (const auto& [life, troubles] : redis_troubles) limit_holds(life);
}

// docs/limits.md: what is lent has been taken from the bucket, so from a full one no more comes than a single gateway
// would give. Over-admission of an event is a burst; who alone cannot reach Redis, if only because an answer took too
// long, adds its own part.
void Oracle::limit_holds(int life) {
  int answered = 0;
  Nanos first = kNever, last = 0;
  for (const auto& asked : world_.asked()) {
    if (asked->key != "b" || asked->life != life) continue;
    first = std::min(first, asked->sent_at);
    if (asked->status != 200 || asked->ended_at < 0) continue;  // or its life ended first
    ++answered;
    last = std::max(last, asked->ended_at);
  }
  if (answered == 0) return;
  const unsigned troubles = redis_troubles[life];
  const double rate = per_second_b * (troubles > 0 ? 1.5 : 1.0);
  const double alone = gateways > 1 && !never_alone.contains(life) ? static_cast<double>(burst_b) / gateways : 0;
  const double most = burst_b * (1.0 + troubles) + alone + rate * static_cast<double>(last - first) / kSecond;
  if (answered > most)
    wrong("life " + std::to_string(life) + " served " + std::to_string(answered) + " requests of a limited key");
}

// Where nothing but Redis was ill an answer is whole, or a limit's refusal; of a key that another gateway has it may be
// that gateway's.
void Oracle::nothing_fails_for_redis() {
  for (const auto& asked : world_.asked()) {
    if (!calm_.contains(asked->life) || !asked->complete || asked->status == 200) continue;
    const bool limited = asked->status == 429 && asked->key != "free";
    // Another gateway has the key, or had it and could not say for a while whether it still does: nobody takes it over.
    const bool at_another = !asked->idempotency_key.empty() &&
                            (asked->status == 409 || (asked->status == 503 && asked->body.contains("does not answer")));
    if (!limited && !at_another)
      wrong("client " + std::to_string(asked->number) + " gets " + std::to_string(asked->status) +
            " where nothing but Redis was ill: " + asked->body.substr(0, 400));
  }
}

// The running counts are the ledger's.
void Oracle::page_agrees(const std::string& when, const std::string& page, std::int64_t spent) {
  const auto at = page.find("\"spent\": \"");
  if (at == std::string::npos) return wrong(when + " the budgets' page has no spending: " + page.substr(0, 300));
  const double says = std::atof(page.c_str() + at + 10);
  if (says * kNano != static_cast<double>(spent))
    wrong(when + " the budget counts " + std::to_string(says) + " neurons, the ledger " +
          std::to_string(spent / kNano));
  if (page.find("\"reserved\": \"0\"") == std::string::npos)
    wrong(when + " something is still reserved: " + page.substr(0, 400));
}

void Oracle::life_ended(int life, int gateway, const std::string& page) {
  std::int64_t spent = 0;
  const auto done = metering::for_each_record(ledger(gateway), {}, [&](const LedgerRecord& record) {
    if (record.key_id == "a") spent += record.nano_neurons;
  });
  const std::string when = "at the end of life " + std::to_string(life);
  if (!done) return wrong(when + " the records cannot be read: " + done.error().message);
  page_agrees(when, page, spent);
}

void Oracle::nothing_is_left() {
  for (const char* family : {"ganglion_requests_in_flight", "ganglion_tier_in_flight", "ganglion_tier_waiting",
                             "ganglion_ledger_open_intents", "ganglion_budget_reserved_ratio"}) {
    for (const std::string& page : metrics_pages) {
      const double value = metric(page, family);
      if (value != 0 && !(value < 0 && std::string_view{family}.contains("budget")))
        wrong(std::string{family} + " is " + std::to_string(value) + " when nothing runs");
    }
  }
}

Verdict Oracle::judge() {
  read();
  no_record_is_invented();
  every_answer_is_billed_once();
  every_attempt_is_covered();
  keys_are_charged_once();
  limits_hold();
  nothing_fails_for_redis();
  nothing_is_left();
  return std::move(verdict_);
}

}  // namespace ganglion::sim
