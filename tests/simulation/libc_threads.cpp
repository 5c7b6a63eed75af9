// The C library's threads, locks, clocks and random numbers, as the simulated machine has them. On threads that are not
// its own everything is the C library's.

#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <unistd.h>
#include <cerrno>
#include <ctime>

#include <cstring>
#include <map>

#include "tests/simulation/machine.hpp"

using ganglion::sim::kNever;
using ganglion::sim::kSecond;
using ganglion::sim::machine;
using ganglion::sim::Nanos;
using ganglion::sim::next_symbol;

// NOLINTBEGIN(readability-identifier-naming): the C library's names
#define REAL(name, version)                                                                         \
  ([] {                                                                                             \
    static decltype(&::name) found = nullptr;                                                       \
    if (found == nullptr) found = reinterpret_cast<decltype(&::name)>(next_symbol(#name, version)); \
    return found;                                                                                   \
  }())

namespace {

// 2026-01-01 00:00 UTC, and a machine that has been up for a while.
constexpr Nanos kWallStart = 1'767'225'600 * kSecond;
constexpr Nanos kSteadyStart = 1'000 * kSecond;
constexpr Nanos kClockRead = 120;

timespec to_timespec(Nanos time) {
  return {.tv_sec = time / kSecond, .tv_nsec = time % kSecond};
}

Nanos deadline_of(clockid_t clock, const timespec* at) {
  const Nanos time = at->tv_sec * kSecond + at->tv_nsec;
  return clock == CLOCK_REALTIME ? time - kWallStart - machine()->wall_jump : time - kSteadyStart;
}

// Of whom the lock is, in glibc's mutex of any type.
int owner_of(const pthread_mutex_t* mutex) {
  return mutex->__data.__owner;
}

void take(pthread_mutex_t* mutex) {
  auto* const m = machine();
  while (REAL(pthread_mutex_trylock, nullptr)(mutex) == EBUSY) {
    if (m->dead_owner(owner_of(mutex))) {  // static locks outlive the process that is simulated
      mutex->__data.__lock = 0;
      mutex->__data.__owner = 0;
      continue;
    }
    m->block(mutex, kNever);
  }
  ++m->current()->held;
}

// Those held, by how many: such locks know no owner, and static ones outlive a life.
std::map<pthread_rwlock_t*, int>& held_locks() {
  static std::map<pthread_rwlock_t*, int> held;
  return held;
}

int wait_on(pthread_cond_t* cond, pthread_mutex_t* mutex, Nanos deadline) {
  auto* const m = machine();
  REAL(pthread_mutex_unlock, nullptr)(mutex);
  --m->current()->held;
  m->wake(mutex);
  const bool told = m->block(cond, deadline);
  take(mutex);
  return told ? 0 : ETIMEDOUT;
}

}  // namespace

void ganglion::sim::free_locks() {
  for (const auto& [lock, holders] : held_locks()) *lock = PTHREAD_RWLOCK_INITIALIZER;
  held_locks().clear();
}

extern "C" {

int pthread_create(pthread_t* handle, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  if (auto* const m = machine()) return m->start_thread(handle, attributes, start, argument);
  return REAL(pthread_create, nullptr)(handle, attributes, start, argument);
}

int pthread_join(pthread_t handle, void** result) {
  if (auto* const m = machine()) m->join(handle);
  return REAL(pthread_join, nullptr)(handle, result);
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  auto* const m = machine();
  if (m == nullptr) return REAL(pthread_mutex_lock, nullptr)(mutex);
  m->point();
  take(mutex);
  return 0;
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) {
  const int result = REAL(pthread_mutex_trylock, nullptr)(mutex);
  if (auto* const m = machine(); m != nullptr && result == 0) ++m->current()->held;
  return result;
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  const int result = REAL(pthread_mutex_unlock, nullptr)(mutex);
  if (auto* const m = machine()) {
    --m->current()->held;
    m->wake(mutex);
    m->point();
  }
  return result;
}

int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
  auto* const m = machine();
  if (m == nullptr) return REAL(pthread_rwlock_rdlock, nullptr)(lock);
  while (REAL(pthread_rwlock_tryrdlock, nullptr)(lock) == EBUSY) m->block(lock, kNever);
  ++held_locks()[lock];
  return 0;
}

int pthread_rwlock_wrlock(pthread_rwlock_t* lock) {
  auto* const m = machine();
  if (m == nullptr) return REAL(pthread_rwlock_wrlock, nullptr)(lock);
  while (REAL(pthread_rwlock_trywrlock, nullptr)(lock) == EBUSY) m->block(lock, kNever);
  ++held_locks()[lock];
  return 0;
}

int pthread_rwlock_unlock(pthread_rwlock_t* lock) {
  const int result = REAL(pthread_rwlock_unlock, nullptr)(lock);
  if (auto* const m = machine()) {
    if (const auto held = held_locks().find(lock); held != held_locks().end() && --held->second == 0)
      held_locks().erase(held);
    m->wake(lock);
  }
  return result;
}

int pthread_cond_wait(pthread_cond_t* cond, pthread_mutex_t* mutex) {
  if (machine() == nullptr) return REAL(pthread_cond_wait, "GLIBC_2.3.2")(cond, mutex);
  return wait_on(cond, mutex, kNever);
}

int pthread_cond_timedwait(pthread_cond_t* cond, pthread_mutex_t* mutex, const timespec* at) {
  if (machine() == nullptr) return REAL(pthread_cond_timedwait, "GLIBC_2.3.2")(cond, mutex, at);
  return wait_on(cond, mutex, deadline_of(CLOCK_REALTIME, at));
}

int pthread_cond_clockwait(pthread_cond_t* cond, pthread_mutex_t* mutex, clockid_t clock, const timespec* at) {
  if (machine() == nullptr) return REAL(pthread_cond_clockwait, nullptr)(cond, mutex, clock, at);
  return wait_on(cond, mutex, deadline_of(clock, at));
}

int pthread_cond_signal(pthread_cond_t* cond) {
  auto* const m = machine();
  if (m == nullptr) return REAL(pthread_cond_signal, "GLIBC_2.3.2")(cond);
  m->wake(cond, false);
  m->point();
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* cond) {
  auto* const m = machine();
  if (m == nullptr) return REAL(pthread_cond_broadcast, "GLIBC_2.3.2")(cond);
  m->wake(cond);
  m->point();
  return 0;
}

int sched_yield() {
  auto* const m = machine();
  if (m == nullptr) return REAL(sched_yield, nullptr)();
  m->pass_time(1'000);
  m->block(m->current(), m->now + 1);
  return 0;
}

int clock_gettime(clockid_t clock, timespec* out) noexcept {
  auto* const m = machine();
  if (m == nullptr) return REAL(clock_gettime, nullptr)(clock, out);
  m->pass_time(kClockRead);
  *out = to_timespec(clock == CLOCK_REALTIME ? m->now + kWallStart + m->wall_jump : m->now + kSteadyStart);
  return 0;
}

int gettimeofday(timeval* out, void* zone) noexcept {
  auto* const m = machine();
  if (m == nullptr) return REAL(gettimeofday, nullptr)(out, zone);
  const timespec now = to_timespec(m->now + kWallStart + m->wall_jump);
  *out = {.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1'000};
  return 0;
}

time_t time(time_t* out) noexcept {
  auto* const m = machine();
  if (m == nullptr) return REAL(time, nullptr)(out);
  const time_t now = to_timespec(m->now + kWallStart + m->wall_jump).tv_sec;
  if (out != nullptr) *out = now;
  return now;
}

int nanosleep(const timespec* time, timespec* left) {
  auto* const m = machine();
  if (m == nullptr) return REAL(nanosleep, nullptr)(time, left);
  m->block(m->current(), m->now + time->tv_sec * kSecond + time->tv_nsec);
  return 0;
}

int usleep(useconds_t us) {
  const timespec time = to_timespec(static_cast<Nanos>(us) * 1'000);
  return nanosleep(&time, nullptr);
}

// One process for all: libraries draw fresh random numbers where it changes.
pid_t getpid() noexcept {
  return machine() != nullptr ? 4'242 : REAL(getpid, nullptr)();
}

int RAND_bytes(unsigned char* out, int size) {
  auto* const m = machine();
  if (m == nullptr) return reinterpret_cast<int (*)(unsigned char*, int)>(next_symbol("RAND_bytes"))(out, size);
  for (int i = 0; i < size; ++i) out[i] = static_cast<unsigned char>(m->secrets.next());
  return 1;
}

// std::random_device::operator()
unsigned _ZNSt13random_device9_M_getvalEv(void* self) {
  auto* const m = machine();
  if (m != nullptr) return static_cast<unsigned>(m->secrets.next());
  return reinterpret_cast<unsigned (*)(void*)>(next_symbol("_ZNSt13random_device9_M_getvalEv"))(self);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
