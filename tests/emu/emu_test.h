/* What the tests of the emulated runtime share: schedules, device memory, programs that are to end badly. */
#ifndef ESPL_TESTS_EMU_EMU_TEST_H
#define ESPL_TESTS_EMU_EMU_TEST_H

#include <cuda_runtime_api.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

static const char *const schedules[] = {"early", "late", "random:1", "random:2", "random:3", "random:4", "random:5", "random:6"};

inline void check_cuda(cudaError_t got, cudaError_t expected, const char *file, int line) {
    if (got != expected) {
        print_error("%s:%d: got %s, expected %s\n", file, line, cudaGetErrorName(got), cudaGetErrorName(expected));
        fail();
    }
}
#define OK(call) check_cuda((call), cudaSuccess, __FILE__, __LINE__)
#define ERROR_IS(error, call) (check_cuda((call), (error), __FILE__, __LINE__), (void)cudaGetLastError())

/* Sets a variable of the environment while it lives. */
class with_setting {
  public:
    with_setting(const char *its_name, const char *value) : name(its_name) { setenv(name, value, 1); }
    ~with_setting() { unsetenv(name); }
    with_setting(const with_setting &) = delete;
    with_setting &operator=(const with_setting &) = delete;

  private:
    const char *name;
};

template <class T> T *device_memory(const std::vector<T> &from) {
    void *p;
    OK(cudaMalloc(&p, from.size() * sizeof(T)));
    OK(cudaMemcpy(p, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return static_cast<T *>(p);
}

template <class T> std::vector<T> host_copy(const T *device, size_t n) {
    std::vector<T> values(n);
    OK(cudaMemcpy(values.data(), device, n * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

struct ending {
    int status; /* of waitpid */
    std::string text;
};

/* Runs this program again with one argument, and what it writes to stderr. */
inline ending run_again(const char *argument) {
    int pipes[2];
    ending end = {0, ""};
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        execl("/proc/self/exe", "again", argument, (char *)nullptr);
        _exit(127);
    }
    close(pipes[1]);
    char buffer[512];
    for (ssize_t n; (n = read(pipes[0], buffer, sizeof buffer)) > 0;)
        end.text.append(buffer, (size_t)n);
    close(pipes[0]);
    assert_int_equal(waitpid(child, &end.status, 0), child);
    return end;
}

#endif
