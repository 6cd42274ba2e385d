/* The ledger without C++, of which musl has no library. */
#include "ledger.h"

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	return ledger_main(argc, argv);
}
