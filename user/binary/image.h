/*
 * An image: one ELF file that a target has mapped, opened once and held by its descriptor, so that
 * a deleted or replaced file still tells what it was. The file is hostile: it is read with pread
 * (never mapped: a file truncated under a mapping is SIGBUS), with limits, and only if it is a
 * regular file.
 */
#ifndef ALLOCTRACE_IMAGE_H
#define ALLOCTRACE_IMAGE_H

#include <gelf.h>
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define IMAGE_BUILD_ID_MAX 64
/* No program header table of a real file comes near; a hostile one is cut here, and refused. */
#define IMAGE_SEGMENTS_MAX 256
#define IMAGE_SECTIONS_MAX 8192

/* Instead of a root's descriptor. */
#define IMAGE_ROOT_OURS	   (-1)
#define IMAGE_ROOT_UNKNOWN (-2) /* nothing is to be looked for by the path */

/* One PT_LOAD. All fields as in Elf64_Phdr; offset + file_size and vaddr + mem_size do not
 * overflow. */
struct image_segment {
	uint64_t vaddr;
	uint64_t offset;
	uint64_t file_size;
	uint64_t mem_size;
	bool executable;
};

struct image {
	int fd;	    /* owned; O_RDONLY on a regular file */
	char *path; /* owned; what the target calls it (may be gone by now, or end in " (deleted)")
		     */
	int root; /* borrowed; descriptor of the folder that is "/" where path counts; or as below */
	size_t root_prefix; /* bytes of path that lead to that folder: "/srv/jail" after chroot */
	dev_t dev;
	dev_t mapped_dev; /* as mappings show it, which on overlays may be another; 0: not mapped */
	ino_t inode;	  /* as mappings show it */
	ino_t file_inode; /* of the file itself */
	uint64_t size;	  /* of the file, when it was opened */
	uint16_t machine; /* EM_X86_64, EM_AARCH64 */
	bool is_exec;	  /* ET_EXEC: addresses are absolute, nothing is relocated */
	uint8_t build_id[IMAGE_BUILD_ID_MAX];
	size_t build_id_len;		/* 0: none */
	struct image_segment *segments; /* owned, in file order */
	size_t segment_count;
	Elf *elf;      /* owned; what image_elf() gives; NULL: not open */
	bool expected; /* whose it is has not mapped it (yet): process_expect_image() */
};

/*
 * Opens an image on fd, which it takes over (also on failure). path is copied.
 * 0, -EINVAL (not a regular file), -ENOEXEC (not a 64-bit little-endian ELF file, or a broken one),
 * -E2BIG (over a limit), -ENOMEM, or the errno of a read.
 */
int image_open(int fd, const char *path, struct image **out);
void image_free(struct image *image);

/*
 * libelf's view of the file (ELF_C_READ); opened where it is not. NULL where it is an ELF file no more, which
 * libelf's functions take.
 */
Elf *image_elf(const struct image *image);

/*
 * That takes 10 KiB, most of an image: closes it, where many images are kept of which little is asked. Nothing
 * that came from it is valid any more.
 */
void image_rest(struct image *image);

/* The order of files, whoever has opened them: less than, equal to or greater than 0. */
int image_compare_files(const struct image *a, const struct image *b);

/* File offset <-> link-time address, through the segments. false: no segment holds it in the file.
 */
bool image_offset_to_vaddr(const struct image *image, uint64_t offset, uint64_t *vaddr);
bool image_vaddr_to_offset(const struct image *image, uint64_t vaddr, uint64_t *offset);

/*
 * What to add to link-time addresses where [start, ...) is an executable mapping of the file from
 * offset on. Not by image_offset_to_vaddr(): a mapping begins at a whole page, where another segment
 * may still go on (lld has them share pages of the file). false: no segment is mapped so.
 */
bool image_bias(const struct image *image, uint64_t start, uint64_t offset, uint64_t *bias);

/*
 * Copies n bytes that the file holds at link-time address vaddr. 0, -ERANGE (not in one segment's
 * file part), or the errno of the read.
 */
int image_read(const struct image *image, uint64_t vaddr, void *to, size_t n);

/* One function symbol, from .dynsym or .symtab. */
struct image_symbol {
	const char
		*name; /* borrowed, for the duration of the call; without a version (@GLIBC_2.34) */
	uint64_t vaddr;
	uint64_t size;	  /* 0: unknown */
	uint32_t section; /* index of the section that holds it, 0: none or unknown */
	uint8_t binding;  /* STB_GLOBAL, STB_WEAK, STB_LOCAL, ... */
	bool dynamic;	  /* from .dynsym */
};

/*
 * Calls visit for every defined STT_FUNC or STT_GNU_IFUNC symbol of .dynsym, then of .symtab (the
 * first section of each type), until it returns non-zero, which is then returned. 0 at the end, or
 * -errno where the tables are broken.
 */
int image_for_each_function(const struct image *image,
			    int (*visit)(const struct image_symbol *symbol, void *context),
			    void *context);

/* One section header. */
struct image_section_info {
	char name[32]; /* cut, if longer: no section that is looked for has so long a name */
	uint32_t index;
	GElf_Shdr header;
	uint64_t size; /* of the contents: decompressed, and 0 for SHT_NOBITS */
};

/*
 * Calls visit for every section until it returns non-zero, which is then returned. 0 at the end,
 * and where there are no section headers or they are broken: a stripped header table is nothing
 * unusual.
 */
int image_for_each_section(const struct image *image,
			   int (*visit)(const struct image_section_info *section, void *context),
			   void *context);

/*
 * The bytes of a section by name (".eh_frame", ".gnu_debugdata", ...), read into memory the caller
 * frees, decompressed where SHF_COMPRESSED, with a NUL behind them. 0, -ENOENT, -E2BIG over max_size,
 * -ENOMEM, -EIO.
 */
int image_section(const struct image *image, const char *name, size_t max_size, uint8_t **data,
		  size_t *size, uint64_t *vaddr);

#endif
