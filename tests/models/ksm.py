"""An obvious ksmd: dictionaries keyed by content instead of trees, pages as Python objects.

Counters agree with the kernel's at the end of each full scan; between two, a tree's shape decides which stale
nodes are noticed first, and there are no trees here. No forks, and no time passes (chains are never pruned).
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Page:
    content: int
    node: "Node | None" = None
    mapped: int = 1


@dataclass(eq=False)
class Node:
    page: Page
    sharers: list["Item"] = field(default_factory=list)

    @property
    def stale(self) -> bool:
        return self.page.mapped == 0


@dataclass(eq=False)
class Item:
    checksum: int | None = None
    node: Node | None = None
    unstable: bool = False


@dataclass
class ModelKsm:
    max_page_sharing: int
    processes: list[dict[int, Page]] = field(default_factory=list)
    items: dict[tuple[int, int], Item] = field(default_factory=dict)
    stable: dict[int, list[Node]] = field(default_factory=dict)  # the list's head is searched first

    def write(self, process: int, vpn: int, content: int) -> None:
        pages = self.processes[process]
        page = pages.get(vpn)
        if page is None or page.node is not None:
            if page is not None:
                page.mapped -= 1
            pages[vpn] = Page(content)
        else:
            page.content = content

    def unmap(self, process: int, vpn: int) -> None:
        page = self.processes[process].pop(vpn, None)
        if page is not None:
            page.mapped -= 1

    def full_scan(self) -> None:
        unstable: dict[int, tuple[int, int]] = {}
        for process, pages in enumerate(self.processes):
            at = 0
            for vpn in sorted(pages):
                self.forget_between(process, at, vpn)
                item = self.items.setdefault((process, vpn), Item())
                self.scan(item, process, vpn, unstable)
                at = vpn + 1
            self.forget_between(process, at, None)

    def forget_between(self, process: int, first: int, behind: int | None) -> None:
        """Items whose pages are gone are freed when the scan passes them, not before."""
        for key in sorted(self.items):
            if key[0] == process and first <= key[1] and (behind is None or key[1] < behind):
                self.forget(self.items.pop(key))

    def forget(self, item: Item) -> None:
        if item.node is not None:
            if item.node.stale:
                self.remove(item.node)
            else:
                item.node.sharers.remove(item)
        item.node = None
        item.unstable = False

    def remove(self, node: Node) -> None:
        for item in node.sharers:
            item.node = None
        node.sharers.clear()
        nodes = self.stable[node.page.content]
        nodes.remove(node)
        if not nodes:
            del self.stable[node.page.content]

    def candidate(self, content: int) -> Node | None:
        nodes = self.stable.get(content, [])
        for node in list(nodes):
            if node.stale:
                self.remove(node)
            elif 0 < len(node.sharers) < self.max_page_sharing:
                if nodes[0] is not node and len(node.sharers) + 1 < self.max_page_sharing:
                    nodes.remove(node)
                    nodes.insert(0, node)
                return node
        return None

    def scan(self, item: Item, process: int, vpn: int, unstable: dict[int, tuple[int, int]]) -> None:
        page = self.processes[process][vpn]
        if page.node is not None and item.node is page.node:
            return
        node = self.candidate(page.content)
        self.forget(item)
        if node is not None:
            self.share(item, process, vpn, node)
            return
        if item.checksum != page.content:
            item.checksum = page.content
            return
        twin = self.twin(unstable, page)
        if twin is None:
            unstable[page.content] = (process, vpn)
            item.unstable = True
            return
        del unstable[page.content]
        other = self.items[twin]
        other.unstable = False
        page.node = Node(page)
        self.stable.setdefault(page.content, []).insert(0, page.node)
        self.share(other, *twin, page.node)
        item.node = page.node
        page.node.sharers.append(item)

    def twin(self, unstable: dict[int, tuple[int, int]], page: Page) -> tuple[int, int] | None:
        found = unstable.get(page.content)
        if found is None or self.processes[found[0]][found[1]] is page:
            return None
        return found

    def share(self, item: Item, process: int, vpn: int, node: Node) -> None:
        self.processes[process][vpn].mapped -= 1
        self.processes[process][vpn] = node.page
        node.page.mapped += 1
        item.node = node
        node.sharers.append(item)

    def counters(self) -> dict[str, int]:
        nodes = [node for nodes in self.stable.values() for node in nodes if node.sharers]
        shared = len(nodes)
        sharing = sum(len(node.sharers) - 1 for node in nodes)
        unshared = sum(item.unstable for item in self.items.values())
        return {
            "pages_shared": shared,
            "pages_sharing": sharing,
            "pages_unshared": unshared,
            "pages_volatile": len(self.items) - shared - sharing - unshared,
        }
