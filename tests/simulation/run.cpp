// See run.hpp.

#include "tests/simulation/run.hpp"

#include <memory>
#include <thread>

#include "app/application.hpp"
#include "config/loader.hpp"
#include "core/log.hpp"
#include "tests/simulation/disk.hpp"
#include "tests/simulation/oracle.hpp"
#include "tests/simulation/redis_server.hpp"

namespace ganglion::sim {
namespace {

constexpr const char* kConfig = R"(
server: {listen: "127.0.0.1:0", workers: 1}
admin: {listen: "127.0.0.1:0"}
log: {level: "off", access_log: false}
ledger: {directory: "/nowhere"}
key_pepper: "${PEPPER}"
keys:
  - {id: a, secret: "${KEY_A}", tenant: of-a}
  - {id: b, secret: "${KEY_B}", tenant: of-b, limits: {requests: {rate: 2/s, burst: 3}}}
  - {id: free, secret: "${KEY_FREE}", tenant: of-free}
tenants: [{name: of-a}, {name: of-b}, {name: of-free}]
pricing: {models: [{model: m, output_per_1m: 1000000}]}
budgets: [{name: of-a, key: a, neurons: 50}]
providers:
  - {name: one, base_url: "http://127.0.0.1:9001/v1", api_key: "${PROVIDER}", models: [m], timeouts: {first_byte: 2s, whole: 2s, idle: 2s, connect: 1s}}
  - {name: two, base_url: "http://127.0.0.1:9002/v1", api_key: "${PROVIDER}", models: [m], timeouts: {first_byte: 2s, whole: 2s, idle: 2s, connect: 1s}}
gateways: [{name: default, cache: {ttl: 20s}, retry: {attempts: 2, backoff: 20ms}}]
limits: {gateways: 2}
budget_sharing: {gateways: 2}
request: {timeout: 20s}
shutdown: {drain: 5s}
)";

const config::Config& parsed() {
  static const config::Config kParsed = [] {
    auto loaded =
        config::load_text(kConfig, "simulation.yaml", {.env = [](std::string_view name) -> std::optional<std::string> {
                            if (name == "PEPPER") return "pepper-0123456789abcdef";
                            if (name == "KEY_A") return "sk-a";
                            if (name == "KEY_B") return "sk-b";
                            if (name == "KEY_FREE") return "sk-free";
                            return "sk-provider";
                          }});
    if (!loaded) {
      std::fprintf(stderr, "%s\n", config::format(loaded.error()).c_str());
      std::abort();
    }
    loaded->source.clear();
    return std::move(*loaded);
  }();
  return kParsed;
}

// Reads one page of the admin listener.
class Page final : public Endpoint {
 public:
  explicit Page(std::string path) : path_(std::move(path)) {}
  void on_open() override { send("GET " + path_ + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); }
  void on_refused() override { end(); }
  void on_data(std::string_view bytes) override { text += bytes; }
  void on_end(bool) override {
    end();
    if (open()) finish();
  }
  std::string text;
  bool ended = false;

 private:
  void end() {
    ended = true;
    machine()->wake(this);
  }
  std::string path_;
};

enum class End { order, kill, power };

class Run {
 public:
  Run(std::uint64_t seed, const RunOptions& options)
      : machine_(seed),
        disk_(machine_, options.root),
        net_(machine_),
        world_(machine_, net_),
        redis_(machine_, net_),
        oracle_(world_, disk_.root()),
        config_(parsed()),
        lying_(options.lying_disk) {
    Random& random = machine_.random;
    config_.ledger.segment_bytes = 64 * 1024;
    config_.ledger.reserve_bytes = 16 * 1024;
    config_.server.workers = random.percent(30) ? 2 : 1;
    // Half of the seeds are two gateways that share a Redis.
    shared_ = random.percent(50);
    if (shared_) config_.redis.addresses = {"127.0.0.1:" + std::to_string(RedisServer::kPort)};
    const auto neurons = random.between(5, shared_ ? 50 : 120);
    config_.gateway.budgets.front().limit_neurons = std::to_string(neurons);
    oracle_.budget_nano = neurons * 1'000'000'000;
    // Now and then a limit that is worth slices, and more requests than it allows. A slice goes back when nobody has
    // spent of it for a second, so some of these lives begin with silences, at a full bucket that refills slowly, and
    // nothing in their way but the limit.
    const bool limited = random.percent(15);
    slices_ = limited && shared_ && Random{seed ^ 0x736c69636573}.percent(50);
    oracle_.burst_b = slices_ ? 64 : limited ? 16 : 3;
    oracle_.per_second_b = limited && !slices_ ? 8 : 2;
    config_.gateway.keys[1].limits.requests = {.amount = static_cast<std::uint64_t>(oracle_.per_second_b),
                                               .period_s = 1,
                                               .burst = static_cast<std::uint64_t>(oracle_.burst_b)};
    config_.gateway.gateways.front().retry.attempts_max = static_cast<int>(random.between(1, 3));
    machine_.preempt = random.percent(20) ? 15 : static_cast<unsigned>(random.between(0, 3));
    world_.requests = static_cast<int>(random.between(3, 30));
    world_.span = random.between(50, 4'000) * kMilli;
    world_.limited_percent = limited ? 95 : 30;
    if (limited) world_.requests = 100;
    if (slices_) {
      world_.rounds = 4;
      world_.requests = 150;
      world_.limited_percent = 100;
      world_.shared_percent = world_.keyed_percent = 0;
    }
    world_.padding = random.percent(30) ? 1'000 : 0;
    disk_.faults.lying = lying_;
    if (options.log) config_.log.level = "info";
    redis_.record = options.record;
    redis_.tell = options.redis;
    redis_.double_return = options.double_return;
    world_.gateways = shared_ ? 2 : 1;
    oracle_.gateways = shared_ ? 2 : 1;
    oracle_.share_in_outage = config_.budget_sharing.share_in_outage = random.percent(50);
    world_.providers();
  }

  RunResult go();

 private:
  using Applications = std::vector<std::unique_ptr<app::Application>>;
  void choose_temper();
  void one_life(End end, bool gentle = false);
  void last_life();
  void no_key_stays_in_doubt(const Applications& applications);
  static std::vector<std::uint16_t> ports(const Applications& applications);
  bool probe(std::uint16_t port, const std::string& key);
  Applications start(bool must_start);
  void serve(const std::function<void(Applications&)>& meanwhile, bool must_start);
  void sleep(Nanos time);
  void wait_for(const void* key, const std::function<bool()>& done, Nanos at_most);
  std::string fetch(std::uint16_t port, const std::string& path);
  std::string quiet_budgets(std::uint16_t port);
  void disk_trouble();
  void wrong(std::string what) { early_.push_back("life " + std::to_string(machine_.life()) + ": " + std::move(what)); }

  Machine machine_;
  Disk disk_;
  Net net_;
  World world_;
  RedisServer redis_;
  Oracle oracle_;
  config::Config config_;
  const bool lying_;
  bool disk_was_troubled_ = false;  // in this life
  bool shared_ = false;
  bool slices_ = false;
  bool calm_ = false;  // providers and clients, in this life
  std::vector<std::string> early_;
};

void Run::choose_temper() {
  Random& random = machine_.random;
  world_.temper = {};
  calm_ = random.percent(20);
  if (calm_) return;
  const auto some = [&](unsigned most) { return random.percent(50) ? static_cast<unsigned>(random.below(most)) : 0U; };
  world_.temper = {.refuse = some(30),
                   .silent = some(20),
                   .error = some(40),
                   .cut = some(40),
                   .reset = some(30),
                   .hang = some(20),
                   .slow = some(40),
                   .no_usage = some(30),
                   .leave = some(50),
                   .slow_reader = some(30),
                   .half_request = some(15)};
}

// Faults of the disk begin and end at some time of the life.
void Run::disk_trouble() {
  Random& random = machine_.random;
  disk_.faults = {.lying = lying_};
  if (!random.percent(35)) return;
  DiskFaults faults{.active = true, .lying = lying_};
  switch (random.below(5)) {
    case 0:
      faults.write_eio = static_cast<unsigned>(random.between(1, 30));
      break;
    case 1:
      faults.sync_eio = static_cast<unsigned>(random.between(1, 60));
      break;
    case 2:
      faults.full = true;
      break;
    case 3:
      faults.short_write = 50;
      break;
    default:
      faults.slow_sync = static_cast<unsigned>(random.between(5, 60));
  }
  if (random.percent(30)) faults.sync_eio = std::max(faults.sync_eio, 5U);
  const Nanos from = random.between(0, 3'000) * kMilli;
  machine_.at(from, [this, faults] {
    disk_.faults = faults;
    disk_was_troubled_ = true;
  });
  machine_.at(from + random.between(1, 3'000) * kMilli, [this] { disk_.faults = {.lying = lying_}; });
}

// On a thread of the product's process, as what follows.
void Run::sleep(Nanos time) {
  if (time > 0) machine_.block(machine_.current(), machine_.now + time);
}

// `key` is woken when `done` has become true.
void Run::wait_for(const void* key, const std::function<bool()>& done, Nanos at_most) {
  const Nanos until = machine_.now + at_most;
  while (!done() && machine_.now < until) machine_.block(key, until);
}

std::string Run::fetch(std::uint16_t port, const std::string& path) {
  const auto page = std::make_shared<Page>(path);
  net_.connect(port, page);
  wait_for(page.get(), [&] { return page->ended; }, 10 * kSecond);
  return page->text;
}

// The budgets' page when nothing runs any more: what clients left behind goes on for a while. Empty where the disk has
// failed: what is being written then counts as spent until the next start, which finds out whether it is.
std::string Run::quiet_budgets(std::uint16_t port) {
  for (int i = 0; i < 30; ++i) {
    const std::string metrics = fetch(port, "/metrics");
    const bool idle = metric(metrics, "ganglion_requests_in_flight") == 0;
    if (idle && disk_was_troubled_) return {};
    if (idle && metric(metrics, "ganglion_ledger_open_intents") == 0) return fetch(port, "/admin/budgets");
    sleep(kSecond);
  }
  wrong("requests are in flight long after their clients have gone");
  return {};
}

// Those that start.
Run::Applications Run::start(bool must_start) {
  Applications out;
  for (int i = 0; i < oracle_.gateways; ++i) {
    config_.ledger.directory = oracle_.ledger(i);
    auto application = std::make_unique<app::Application>(std::make_shared<const config::Config>(config_));
    const std::string name = oracle_.gateways > 1 ? "gateway " + std::to_string(i) : "the gateway";
    if (const auto started = application->start(); !started) {
      machine_.trace(name + " does not start: " + started.error().message);
      if (must_start) wrong(name + " does not start on a sound disk: " + started.error().message);
      oracle_.absent.insert(machine_.life());
      continue;
    }
    machine_.trace(name + " serves");
    oracle_.served[i].insert(machine_.life());
    out.push_back(std::move(application));
  }
  return out;
}

void Run::serve(const std::function<void(Applications&)>& meanwhile, bool must_start) {
  Applications applications = start(must_start);
  if (applications.empty()) return;
  std::thread others([&] {
    meanwhile(applications);
    for (const auto& each : applications) each->request_stop();
  });
  std::vector<std::thread> runs;
  for (std::size_t i = 1; i < applications.size(); ++i) runs.emplace_back([&, i] { applications[i]->run(); });
  applications.front()->run();
  others.join();
  for (std::thread& run : runs) run.join();
  applications.clear();
  if (const auto left = net_.open_sockets(); left != 0) wrong(std::to_string(left) + " sockets are open after the end");
}

// `gentle`: nothing fails.
void Run::one_life(End end, bool gentle) {
  Random& random = machine_.random;
  choose_temper();
  if (gentle) world_.temper = {};
  calm_ |= gentle;
  net_.quick = gentle;
  const bool troubled_start = !gentle && random.percent(10);
  disk_.faults = {.lying = lying_};
  disk_was_troubled_ = false;
  if (troubled_start) disk_trouble();
  if (end != End::order) {
    const Nanos when = random.percent(25) ? random.between(0, 3'000) * kMicro : random.between(0, 5'000) * kMilli;
    machine_.crash_at(machine_.now + when);
  }
  const Nanos began = machine_.now;
  std::vector<std::string> pages;
  const bool returned = machine_.run_life(
      [&] {
        redis_.life(!shared_ || gentle);
        serve(
            [&](Applications& applications) {
              if (!troubled_start && !gentle) disk_trouble();
              world_.clients(ports(applications));
              wait_for(&world_, [&] { return world_.all_ended(); }, 60 * kSecond);
              sleep(began + world_.span - machine_.now);
              if (!world_.all_ended()) wrong("a request never ended");
              if (end != End::order || applications.size() < world_.gateways) return;
              bool alone = false;
              for (const auto& each : applications) {
                pages.push_back(quiet_budgets(each->admin_port()));
                alone |= metric(fetch(each->admin_port(), "/metrics"), "ganglion_limiter_local_share_total") > 0;
              }
              if (!alone) oracle_.never_alone.insert(machine_.life());
            },
            !troubled_start);
      },
      300 * kSecond);
  oracle_.calm(machine_.life(), calm_ && !disk_was_troubled_);
  oracle_.redis_troubles[machine_.life()] = redis_.troubles();
  for (std::size_t i = 0; returned && i < pages.size(); ++i)
    if (!pages[i].empty()) oracle_.life_ended(machine_.life(), static_cast<int>(i), pages[i]);
  if (machine_.hung()) wrong("the gateway hangs");
  machine_.trace(returned ? "stopped by order" : end == End::power ? "power lost" : "killed");
  net_.after_crash();
  disk_.faults = {.lying = lying_};
  const bool power = end == End::power && !returned;
  if (power) oracle_.power_lost.insert(machine_.life());
  disk_.after_crash(power);
}

// After all that a plain request is served, or refused by its budget: true, false.
bool Run::probe(std::uint16_t port, const std::string& key) {
  const auto asked = world_.probe(port, key);
  wait_for(&world_, [&] { return world_.all_ended(); }, 30 * kSecond);
  const bool refused = key == "a" && asked->complete && asked->status == 429;
  if (!asked->good() && !refused)
    wrong("a plain request of key " + key + " after all that gets " + std::to_string(asked->status) + ": " +
          asked->body.substr(0, 600));
  return asked->good();
}

// Gateways that are back know, or are asked, what became of every key that they had.
void Run::no_key_stays_in_doubt(const Applications& applications) {
  constexpr Nanos kLease = 10 * kSecond;  // KeyShareOptions
  sleep(kLease + kSecond);
  const auto asked = world_.keys_again(ports(applications));
  wait_for(&world_, [&] { return world_.all_ended(); }, 200 * kSecond);
  for (const auto& each : asked) {
    // Billed and without an answer to repeat; or the budget is spent.
    if (each->good() || (each->complete && (each->status == 409 || each->status == 429))) continue;
    wrong("key " + each->idempotency_key + " at gateway " + std::to_string(each->gateway) + " after all that gets " +
          std::to_string(each->status) + ": " + each->body.substr(0, 600));
  }
}

void Run::last_life() {
  world_.temper = {};
  net_.quick = false;
  disk_.faults = {.lying = lying_};
  const bool returned = machine_.run_life(
      [&] {
        redis_.life(true);
        serve(
            [&](Applications& applications) {
              // Budgets are registered by then, whatever was lost.
              if (shared_) sleep(redis_.lost_data() ? 4 * kSecond : 400 * kMilli);
              for (const auto& each : applications) probe(each->proxy_port(), "free");
              if (shared_ && applications.size() == world_.gateways) no_key_stays_in_doubt(applications);
              oracle_.budget_refuses = !probe(applications.front()->proxy_port(), "a");
              sleep(50 * kMilli);
              for (const auto& each : applications) {
                oracle_.budgets_pages.push_back(fetch(each->admin_port(), "/admin/budgets"));
                oracle_.metrics_pages.push_back(fetch(each->admin_port(), "/metrics"));
              }
            },
            true);
      },
      300 * kSecond);
  if (!returned) wrong("the gateway hangs");
  oracle_.redis_lost_data = redis_.lost_data();
  oracle_.redis_troubled = redis_.ever_troubled();
  if (!redis_.broken().empty()) wrong(redis_.broken());
}

std::vector<std::uint16_t> Run::ports(const Applications& applications) {
  std::vector<std::uint16_t> out;
  for (const auto& each : applications) out.push_back(each->proxy_port());
  return out;
}

RunResult Run::go() {
  Random& random = machine_.random;
  const auto lives = random.between(1, 3);
  for (std::int64_t i = 0; i < lives; ++i) {
    const auto how = random.below(10);
    if (slices_ && i == 0)
      one_life(End::order, true);
    else
      one_life(how < 3 ? End::order : how < 6 ? End::kill : End::power);
    if (!early_.empty()) break;
  }
  if (early_.empty()) last_life();
  RunResult out;
  out.violations = early_;
  if (early_.empty()) {
    Verdict verdict = oracle_.judge();
    out.violations = std::move(verdict.violations);
    out.records = verdict.records;
    out.billed = verdict.billed;
    out.aborted = verdict.aborted;
    for (const std::string& line : verdict.lines) machine_.trace(line);
  }
  out.lives = static_cast<std::size_t>(machine_.life());
  out.requests = world_.asked().size();
  out.attempts = world_.received().size();
  out.trace = machine_.lines();
  out.digest = machine_.digest();
  out.simulated_s = static_cast<double>(machine_.now) / kSecond;
  return out;
}

}  // namespace

RunResult run_seed(std::uint64_t seed, const RunOptions& options) {
  static_cast<void>(parsed());
  core::set_log_level(core::LogLevel::off);
  Run run(seed, options);
  return run.go();
}

}  // namespace ganglion::sim
