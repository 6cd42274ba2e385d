// go_cgo: a Go program that allocates in C, from goroutines whose stacks grow and shrink.
//
// Says "ready PID", waits for a line, prints the books of its C code in ledger's format, waits for
// another line and ends.
package main

/*
#include <stdlib.h>

__attribute__((noipa)) void *path_cgo(size_t size)
{
	return malloc(size);
}

__attribute__((noipa)) void *path_cgo_grown(void *block, size_t size)
{
	return realloc(block, size);
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"
)

const (
	workers = 4
	rounds  = 500
)

// Go moves a stack that has no more room: as often as this is called on a fresh goroutine.
func deep(n int, block unsafe.Pointer) unsafe.Pointer {
	var room [256]byte
	if n == 0 {
		return C.path_cgo_grown(block, 300)
	}
	room[n] = byte(n)
	block = deep(n-1, block)
	if room[n] != byte(n) {
		panic("a stack was broken")
	}
	return block
}

func work(kept []unsafe.Pointer, done *sync.WaitGroup) {
	defer done.Done()
	for i := range kept {
		kept[i] = C.path_cgo(100)
		if i%5 == 0 {
			grown := make(chan unsafe.Pointer)
			go func() { grown <- deep(100, kept[i]) }()
			kept[i] = <-grown
		}
		if i%2 == 1 {
			C.free(kept[i])
		}
		if i%100 == 0 {
			runtime.GC()
		}
	}
}

func main() {
	var done sync.WaitGroup
	var kept [workers][rounds]unsafe.Pointer
	lines := bufio.NewReader(os.Stdin)

	debug.SetGCPercent(10)
	fmt.Println("ready", os.Getpid())
	lines.ReadString('\n')
	done.Add(workers)
	for i := range kept {
		go work(kept[i][:], &done)
	}
	done.Wait()
	// Of ten in a row, five are freed, and of the two that grew, one.
	all, tenth := workers*rounds, workers*rounds/10
	fmt.Printf(`{"cgo": {"alloc_objects": %d, "alloc_bytes": %d, "inuse_objects": %d, "inuse_bytes": %d}, `,
		all, all*100, tenth*4, tenth*400)
	fmt.Printf(`"cgo_grown": {"alloc_objects": %d, "alloc_bytes": %d, "inuse_objects": %d, "inuse_bytes": %d}}`+"\n",
		tenth*2, tenth*600, tenth, tenth*300)
	lines.ReadString('\n')
}
