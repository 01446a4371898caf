import torch
from torch import nn
from torch.nn import functional as F
class SmallViT(nn.Module):
    def __init__(self, width=64, depth=3, classes=10):
        super().__init__()
        self.embed=nn.Sequential(nn.Conv2d(1,32,3,padding=1),nn.GELU(),nn.Conv2d(32,width,2,2)); self.pos=nn.Parameter(torch.randn(1,16,width)*.02)
        self.enc=nn.TransformerEncoder(nn.TransformerEncoderLayer(width,4,2*width,dropout=0,batch_first=True,norm_first=True),depth,enable_nested_tensor=False); self.norm=nn.LayerNorm(width); self.head=nn.Linear(width,classes)
    def patch_features(self,x):
        h=self.norm(self.enc(self.embed(x).flatten(2).transpose(1,2)+self.pos)); return h.transpose(1,2).unflatten(2,(4,4))
    def pooled(self,x): return self.patch_features(x).mean((2,3))
    def forward(self,x): return self.head(self.pooled(x))
class SmallCNN(nn.Module):
    def __init__(self, channels=32, classes=10):
        super().__init__()
        self.net=nn.Sequential(nn.Conv2d(1,32,3,padding=1),nn.GELU(),nn.Conv2d(32,64,3,stride=2,padding=1),nn.GELU(),nn.Conv2d(64,channels,3,padding=1),nn.GELU()); self.head=nn.Linear(channels,classes)
    def pooled(self,x): return self.net(x).mean((2,3))
    def forward(self,x): return self.head(self.pooled(x))
def train_classifier(model, images, labels, *, steps=500, batch=64, lr=3e-3, seed=0, progress=None):
    g=torch.Generator().manual_seed(seed); opt=torch.optim.AdamW(model.parameters(),lr=lr,weight_decay=.05)
    sch=torch.optim.lr_scheduler.OneCycleLR(opt,lr,total_steps=steps)
    for _ in range(steps):
        i=torch.randint(len(images),(batch,),generator=g)
        loss=F.cross_entropy(model(images[i]),labels[i]); opt.zero_grad(); loss.backward(); opt.step(); sch.step()
        if progress: progress(1)
    model.eval()
